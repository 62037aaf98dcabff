// y = x W^T for few rows on tensor cores: each warp streams its chunks of 16 output columns from memory to registers.
#include "cuda/check.h"
#include "cuda/kernels/linear_paths.h"
#include "cuda/kernels/linear_result.h"

namespace nds::cuda {
namespace {

constexpr int kColumns = 16;    // output columns of a block
constexpr int kRowStride = 20;  // floats between rows of chunk sums: no bank conflicts
constexpr int kLoads = 8;       // 16-byte loads of weights in flight per lane and batch
constexpr int kMaxFewChunks = 64;
constexpr unsigned kManyBlocks = 128;
constexpr int64_t kMaxSharedBytes = 96 * 1024;

// Position in the chunks of a warp: the current chunk, and its runs [run, end) that are left. A batch takes kRuns runs.
struct Cursor {
  int chunk, run, end;
};

// Weights of a batch: for each run, rows r and r + 8 of each matrix.
template <int kMatrices>
struct Batch {
  static constexpr int kRuns = kLoads / (2 * kMatrices);
  uint4 rows[kRuns][kMatrices][2];
};

template <int kTiles, bool kIsProduct>
class FewRows {
 public:
  static constexpr int kMatrices = kIsProduct ? 2 : 1;
  static constexpr int kMatrixFloats = kTiles * 8 * kRowStride, kChunkFloats = kMatrices * kMatrixFloats;
  static constexpr int kMaxWarps = kTiles == 1 ? 16 : 8;
  using Order = ChunkOrder<kMaxFewChunks>;

  __device__ FewRows(const LinearArgs& args, const Order& order, float* sums)
      : order_(order), sums_(sums), lane_(threadIdx.x % 32), num_warps_(blockDim.x / 32) {
    const int r = lane_ / 4, q = lane_ % 4, last = (kIsProduct ? args.width : args.w.num_rows) - 1;
    NDS_UNROLL()
    for (int half = 0; half < 2; half++) {
      // Padding columns read the weights of the last column; their sums are not used.
      const int64_t row = min(static_cast<int>(blockIdx.x) * kColumns + half * 8 + r, last);
      weights_[half] = static_cast<const uint4*>(args.w.data) + row * (args.w.ld / 8) + q;
    }
    up_ = kIsProduct ? args.up_offset * (args.w.ld / 8) : 0;
    x_ = static_cast<const uint4*>(args.x) + r * (args.ldx / 8) + q;
    x_tile_ = args.ldx;  // 8 rows, in units of 8 elements
    num_rows_ = args.m - r;
  }

  __device__ void run() {
    const int warp = threadIdx.x / 32;
    for (int chunk = warp; chunk < order_.num_chunks; chunk += num_warps_) {
      if (order_.edges[chunk] == order_.edges[chunk + 1]) store_chunk(chunk);
    }
    // Two batches in flight; each is refilled once it is multiplied.
    Batch<kMatrices> even, odd;
    Cursor a = settled({warp - num_warps_, 0, 0}), b;
    load<true>(even, a);
    b = next(a);
    load<true>(odd, b);
    simt::wait_for_previous();
    while (a.chunk < order_.num_chunks) {
      multiply(even, a);
      a = next(b);
      load<false>(even, a);
      if (b.chunk >= order_.num_chunks) break;
      multiply(odd, b);
      b = next(a);
      load<false>(odd, b);
    }
  }

 private:
  static constexpr int kRuns = Batch<kMatrices>::kRuns;

  // `at` while its chunk has runs left, else the start of the next chunk of the warp that has any.
  __device__ Cursor settled(Cursor at) const {
    while (at.run >= at.end && at.chunk < order_.num_chunks) {
      at.chunk += num_warps_;
      if (at.chunk < order_.num_chunks) at = {at.chunk, order_.edges[at.chunk], order_.edges[at.chunk + 1]};
    }
    return at;
  }
  __device__ Cursor next(const Cursor& at) const { return settled({at.chunk, at.run + kRuns, at.end}); }

  // is_early: before wait_for_previous().
  template <bool is_early>
  __device__ void load(Batch<kMatrices>& batch, const Cursor& at) const {
    NDS_UNROLL()
    for (int i = 0; i < kRuns; i++) {
      if (at.run + i >= at.end) break;
      NDS_UNROLL()
      for (int matrix = 0; matrix < kMatrices; matrix++) {
        NDS_UNROLL()
        for (int half = 0; half < 2; half++) {
          const uint4* const from = weights_[half] + matrix * up_ + (at.run + i) * 4;
          batch.rows[i][matrix][half] = is_early ? simt::ld_early_16(from) : __ldg(from);
        }
      }
    }
  }

  __device__ void multiply(const Batch<kMatrices>& batch, const Cursor& at) {
    uint4 x[kRuns][kTiles];
    NDS_UNROLL()
    for (int i = 0; i < kRuns; i++) {
      NDS_UNROLL()
      for (int tile = 0; tile < kTiles; tile++) {
        x[i][tile] = {0, 0, 0, 0};
        if (at.run + i < at.end && tile * 8 < num_rows_) x[i][tile] = x_[tile * x_tile_ + (at.run + i) * 4];
      }
    }
    NDS_UNROLL()
    for (int i = 0; i < kRuns; i++) {
      if (at.run + i >= at.end) break;
      NDS_UNROLL()
      for (int matrix = 0; matrix < kMatrices; matrix++) {
        const WeightRun columns(batch.rows[i][matrix][0], batch.rows[i][matrix][1]);
        NDS_UNROLL()
        for (int tile = 0; tile < kTiles; tile++) multiply_run(acc_[matrix][tile], columns, x[i][tile]);
      }
    }
    if (at.run + kRuns >= at.end) store_chunk(at.chunk);
  }

  // acc_ to shared memory [chunk][matrix][row][column]; then zeros.
  __device__ void store_chunk(int chunk) {
    const int r = lane_ / 4, q = lane_ % 4;
    NDS_UNROLL()
    for (int matrix = 0; matrix < kMatrices; matrix++) {
      NDS_UNROLL()
      for (int tile = 0; tile < kTiles; tile++) {
        float* const to = sums_ + chunk * kChunkFloats + matrix * kMatrixFloats + (tile * 8 + 2 * q) * kRowStride + r;
        NDS_UNROLL()
        for (int i = 0; i < 4; i++) {
          to[i % 2 * kRowStride + i / 2 * 8] = acc_[matrix][tile][i];
          acc_[matrix][tile][i] = 0;
        }
      }
    }
  }

  const Order& order_;
  float* const sums_;
  const int lane_, num_warps_;
  const uint4* weights_[2];  // this lane's 16 bytes of run 0 of output columns r and r + 8
  int64_t up_;               // from gate to up, in units of 16 bytes
  const uint4* x_;
  int64_t x_tile_;
  int num_rows_;  // from this lane's row on
  float acc_[kMatrices][kTiles][4] = {};
};

template <int kCount>
__device__ float balanced_sum(const float* sums, int stride) {
  if constexpr (kCount == 1) {
    return sums[0];
  } else {
    const float lower = balanced_sum<kCount / 2>(sums, stride);
    return __fadd_rn(lower, balanced_sum<kCount / 2>(sums + kCount / 2 * stride, stride));
  }
}

// Runs the stack program on the chunk sums of one element. Returns the first root; if there are more, they are then at
// sums[root * stride].
template <typename Order>
__device__ float join_chunks(float* sums, int stride, const Order& order) {
  if (order.is_balanced) {  // the same tree, with independent loads
    if (order.num_chunks == 4) return balanced_sum<4>(sums, stride);
    if (order.num_chunks == 8) return balanced_sum<8>(sums, stride);
    if (order.num_chunks == 16) return balanced_sum<16>(sums, stride);
    if (order.num_chunks == 32) return balanced_sum<32>(sums, stride);
  }
  int depth = 0;
  for (int c = 0; c < order.num_chunks; c++) {
    float top = sums[c * stride];
    for (int i = order.merges[c]; i > 0; i--) top = __fadd_rn(sums[--depth * stride], top);
    sums[depth++ * stride] = top;
  }
  return sums[0];
}

template <int kTiles, bool kIsProduct>
__global__ void __launch_bounds__(FewRows<kTiles, kIsProduct>::kMaxWarps * 32)
    few_kernel(LinearArgs args, typename FewRows<kTiles, kIsProduct>::Order order) {
  using Work = FewRows<kTiles, kIsProduct>;
  simt::SharedCarver carver;
  float* const sums = carver.take<float>(order.num_chunks * Work::kChunkFloats);
  Work(args, order, sums).run();
  __syncthreads();
  for (int i = threadIdx.x; i < args.m * kColumns; i += blockDim.x) {
    const int row = i / kColumns, column = blockIdx.x * kColumns + i % kColumns;
    float* const mine = sums + row * kRowStride + i % kColumns;
    const float sum = join_chunks(mine, Work::kChunkFloats, order);
    if constexpr (kIsProduct) {
      store_product(args, row, column, sum, join_chunks(mine + Work::kMatrixFloats, Work::kChunkFloats, order));
    } else {
      store_sum(args, 0, row, column, sum);
      for (int root = 1; root < args.w.num_roots; root++) {
        store_sum(args, root, row, column, mine[root * Work::kChunkFloats]);
      }
    }
  }
}

int64_t shared_bytes(const LinearArgs& args) {
  const int tiles = args.m <= 8 ? 1 : args.m <= 16 ? 2 : 4, matrices = args.result == LinearResult::silu_mul ? 2 : 1;
  return int64_t{4} * args.w.num_chunks * matrices * tiles * 8 * kRowStride;
}

template <int kTiles, bool kIsProduct>
void launch(const LinearArgs& args, LaunchPlace place) {
  using Work = FewRows<kTiles, kIsProduct>;
  const unsigned blocks = (result_columns(args) + kColumns - 1) / kColumns;
  // With enough blocks for all multiprocessors, two blocks of 8 warps on each beat one large block.
  const int most_warps = blocks > kManyBlocks ? 8 : Work::kMaxWarps;
  const unsigned warps = max(1, min(args.w.num_chunks, most_warps));
  check(simt::launch(few_kernel<kTiles, kIsProduct>,
                     {dim3(blocks), dim3(warps * 32), static_cast<size_t>(shared_bytes(args)), place}, args,
                     typename Work::Order(args.w)),
        "linear_few");
}

template <int kTiles>
void launch(const LinearArgs& args, LaunchPlace place) {
  args.result == LinearResult::silu_mul ? launch<kTiles, true>(args, place) : launch<kTiles, false>(args, place);
}

}  // namespace

bool linear_few_serves(const LinearArgs& args) {
  return args.m <= kFewRows && args.w.num_chunks <= kMaxFewChunks && shared_bytes(args) <= kMaxSharedBytes;
}

void linear_few(const LinearArgs& args, LaunchPlace place) {
  if (args.m <= 8) return launch<1>(args, place);
  if (args.m <= 16) return launch<2>(args, place);
  launch<4>(args, place);
}

}  // namespace nds::cuda
