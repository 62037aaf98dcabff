// y = x W^T for many rows on tensor cores: tiles of W and x pass through shared memory.
#include "core/program/packed_linear.h"
#include "cuda/check.h"
#include "cuda/kernels/linear_paths.h"
#include "cuda/kernels/linear_result.h"

namespace nds::cuda {
namespace {

using Order = ChunkOrder<kMaxChunks>;

// Elements of k in a run. A row of a run is 64 bytes: two rows fill the banks, so that no padding is needed.
constexpr int kRunElements = 32;
constexpr int kVectors = kRunElements / 8;

// kWarpsAcross x kWarpsDown warps; each has kColumnTiles x 16 output columns of kRowTiles x 8 rows. For silu_mul,
// groups of 16 columns alternate between gate and up, so that a thread has both sums of an element.
template <int kWarpsAcross_, int kWarpsDown_, int kColumnTiles_, int kRowTiles_, int kStages_>
struct Shape {
  static constexpr int kWarpsAcross = kWarpsAcross_, kWarpsDown = kWarpsDown_;
  static constexpr int kColumnTiles = kColumnTiles_, kRowTiles = kRowTiles_, kStages = kStages_;
  static constexpr int kThreads = kWarpsAcross * kWarpsDown * 32;
  static constexpr int kColumns = kWarpsAcross * kColumnTiles * 16, kRows = kWarpsDown * kRowTiles * 8;
  static constexpr int kRunsPerStage = 2;
  static constexpr int kPanelRows = kColumns + kRows;  // of W, then of x
  static constexpr int kStageVectors = kRunsPerStage * kPanelRows * kVectors;
  static constexpr int kSums = kColumnTiles * kRowTiles * 4;  // of a thread
};

template <typename S, bool kIsProduct>
class Tile {
 public:
  __device__ Tile(const LinearArgs& args, const Order& order, int stack_levels)
      : args_(args), order_(order), thread_(threadIdx.x), first_row_(blockIdx.x * S::kRows) {
    simt::SharedCarver carver;
    stages_ = carver.take<uint4>(S::kStages * S::kStageVectors);
    stack_ = carver.take<float>(stack_levels * S::kSums * S::kThreads) + thread_;
    num_runs_ = order.edges[order.num_chunks];
    next_edge_ = order.edges[1];
    NDS_UNROLL()
    for (int i = 0; i < kCopies; i++) {
      const int row = (thread_ + i * S::kThreads) / kVectors;
      const int64_t source = row < S::kColumns ? weight_row(row) : x_row(row - S::kColumns);
      const int64_t ld = row < S::kColumns ? args.w.ld : args.ldx;
      const void* const base = row < S::kColumns ? args.w.data : args.x;
      sources_[i] = static_cast<const uint4*>(base) + source * (ld / 8) + thread_ % kVectors;
    }
  }

  __device__ void run() {
    for (int step = 0; step < S::kStages - 1; step++) {
      load(step);
      simt::cp_async_commit();
    }
    NDS_UNROLL(1)
    for (int run = 0;; run++) {
      if (run == next_edge_) finish_chunks();
      if (run == num_runs_) break;
      const int step = run / S::kRunsPerStage;
      if (run % S::kRunsPerStage == 0) {
        simt::cp_async_wait<S::kStages - 2>();
        __syncthreads();  // this step's tiles are here, and all have read the stage that is filled next
        load(step + S::kStages - 1);
        simt::cp_async_commit();
      }
      multiply(stages_ + (step % S::kStages * S::kRunsPerStage + run % S::kRunsPerStage) * S::kPanelRows * kVectors);
    }
    simt::cp_async_wait<0>();
    store();
  }

 private:
  // 16-byte copies per thread and run; a thread copies the same column of each of its rows.
  static constexpr int kCopies = S::kPanelRows * kVectors / S::kThreads;
  static_assert(S::kPanelRows * kVectors % S::kThreads == 0 && S::kThreads % kVectors == 0);
  static_assert(!kIsProduct || S::kColumnTiles % 2 == 0);
  static constexpr int kResultColumns = kIsProduct ? S::kColumns / 2 : S::kColumns;

  // Output column of column `column` of the tile.
  __device__ int result_column(int column) const {
    const int first = blockIdx.y * kResultColumns;
    return kIsProduct ? first + column / 32 * 16 + column % 16 : first + column;
  }
  // Rows in memory. Past the last row of the result they repeat it; their sums are not stored.
  __device__ int64_t weight_row(int column) const {
    const int result = result_column(column);
    if (kIsProduct) return min(result, args_.width - 1) + (column / 16 % 2) * args_.up_offset;
    return min(result, args_.w.num_rows - 1);
  }
  __device__ int64_t x_row(int row) const { return min(first_row_ + row, args_.m - 1); }

  __device__ void load(int step) {
    uint4* const stage = stages_ + step % S::kStages * S::kStageVectors + thread_;
    NDS_UNROLL()
    for (int r = 0; r < S::kRunsPerStage; r++) {
      const int run = step * S::kRunsPerStage + r;
      if (run >= num_runs_) break;
      NDS_UNROLL()
      for (int i = 0; i < kCopies; i++) {
        simt::cp_async16(stage + r * S::kPanelRows * kVectors + i * S::kThreads, sources_[i] + run * kVectors);
      }
    }
  }

  __device__ void multiply(const uint4* panel) {
    const int lane = thread_ % 32, warp = thread_ / 32;
    const int across = warp % S::kWarpsAcross, down = warp / S::kWarpsAcross;
    const uint4* const w = panel + across * S::kColumnTiles * 16 * kVectors + lane;
    const uint4* const x = panel + (S::kColumns + down * S::kRowTiles * 8) * kVectors + lane;
    uint4 rows[S::kRowTiles];
    NDS_UNROLL()
    for (int j = 0; j < S::kRowTiles; j++) rows[j] = x[j * 8 * kVectors];
    NDS_UNROLL()
    for (int i = 0; i < S::kColumnTiles; i++) {
      const WeightRun columns(w[i * 16 * kVectors], w[(i * 16 + 8) * kVectors]);
      NDS_UNROLL()
      for (int j = 0; j < S::kRowTiles; j++) multiply_run(acc_[i][j], columns, rows[j]);
    }
  }

  // Runs the stack program for each chunk that ends at run next_edge_. acc_ is the topmost sum. A sum that the next
  // chunk joins first is held in registers, others in shared memory.
  __device__ void finish_chunks() {
    const int end = next_edge_;
    while (next_edge_ == end) {
      NDS_UNROLL(1)
      for (int i = order_.merges[chunk_]; i > 0; i--) {
        if (!is_held_) depth_--;
        each_sum(
            [&](float& sum, float& held, float* below, int, int) { sum = __fadd_rn(is_held_ ? held : *below, sum); });
        is_held_ = false;
      }
      if (++chunk_ == order_.num_chunks) return;
      next_edge_ = order_.edges[chunk_ + 1];
      is_held_ = order_.merges[chunk_] > 0;
      each_sum([&](float& sum, float& held, float* free, int, int) {
        if (is_held_)
          held = sum;
        else
          *free = sum;
        sum = 0;
      });
      if (!is_held_) depth_++;
    }
  }
  // action(sum, its counterpart held in registers, its counterpart at level depth_ of the stack in shared memory,
  // column, row), with column and row relative to the first sum of the thread.
  template <typename Action>
  __device__ void each_sum(const Action& action) {
    float* const level = stack_ + depth_ * S::kSums * S::kThreads;
    NDS_UNROLL()
    for (int i = 0; i < S::kColumnTiles; i++) {
      NDS_UNROLL()
      for (int j = 0; j < S::kRowTiles; j++) {
        NDS_UNROLL()
        for (int e = 0; e < 4; e++) {
          action(acc_[i][j][e], held_[i][j][e], level + ((i * S::kRowTiles + j) * 4 + e) * S::kThreads,
                 i * 16 + e / 2 * 8, j * 8 + e % 2);
        }
      }
    }
  }

  // The sums of each root pass through shared memory [row][column], so that stores to a row coalesce.
  __device__ void store() {
    constexpr int kStride = S::kColumns + 4;  // no bank conflicts
    static_assert(S::kRows * kStride <= S::kStages * S::kStageVectors * 4);
    float* const tile = reinterpret_cast<float*>(stages_);
    const int lane = thread_ % 32, warp = thread_ / 32;
    const int first_column = warp % S::kWarpsAcross * S::kColumnTiles * 16 + lane / 4;
    const int first_row = warp / S::kWarpsAcross * S::kRowTiles * 8 + lane % 4 * 2;
    float* const mine = tile + first_row * kStride + first_column;
    const int num_roots = depth_ + 1, num_rows = min(args_.m - first_row_, S::kRows),
              num_columns = result_columns(args_);
    NDS_UNROLL(1)
    for (int root = 0; root < num_roots; root++) {
      __syncthreads();  // all have read what was in the tile
      depth_ = root;
      const bool is_last = root + 1 == num_roots;
      each_sum([&](float& sum, float&, float* below, int column, int row) {
        mine[row * kStride + column] = is_last ? sum : *below;
      });
      __syncthreads();
      NDS_UNROLL(1)
      for (int i = thread_; i < num_rows * kResultColumns; i += S::kThreads) {
        const int row = i / kResultColumns, local = i % kResultColumns, column = result_column(0) + local;
        if (column >= num_columns) continue;
        const float* const from = tile + row * kStride;
        if constexpr (kIsProduct) {
          const float* const gate = from + local / 16 * 32 + local % 16;
          store_product(args_, first_row_ + row, column, gate[0], gate[16]);
        } else {
          store_sum(args_, root, first_row_ + row, column, from[local]);
        }
      }
    }
  }

  const LinearArgs& args_;
  const Order& order_;
  const int thread_, first_row_;
  uint4* stages_;  // [stage][run][row of W, then of x][4]
  float* stack_;   // [level][sum][thread]
  int num_runs_, next_edge_, chunk_ = 0, depth_ = 0;
  bool is_held_ = false;
  const uint4* sources_[kCopies];
  float acc_[S::kColumnTiles][S::kRowTiles][4] = {}, held_[S::kColumnTiles][S::kRowTiles][4] = {};
};

template <typename S, bool kIsProduct>
__global__ void __launch_bounds__(S::kThreads) tiled_kernel(LinearArgs args, Order order, int stack_levels) {
  simt::wait_for_previous();
  Tile<S, kIsProduct>(args, order, stack_levels).run();
}

// Max stack levels in shared memory at once, as finish_chunks uses them.
int stack_levels(const LinearWeight& w) {
  int most = 0, depth = 0, held = 0;
  for (int c = 0; c + 1 < w.num_chunks; c++) {
    depth -= w.host_merges[c] - held;
    held = w.host_merges[c + 1] > 0 ? 1 : 0;
    if (held == 0) most = max(most, ++depth);
  }
  return most;
}

template <typename S>
dim3 grid_of(const LinearArgs& args) {
  const int columns = args.result == LinearResult::silu_mul ? S::kColumns / 2 : S::kColumns;
  return dim3((args.m + S::kRows - 1) / S::kRows, (result_columns(args) + columns - 1) / columns);
}

template <typename S>
size_t shared_bytes(int stack_levels) {
  return size_t{S::kStages} * S::kStageVectors * 16 + size_t{4} * stack_levels * S::kSums * S::kThreads;
}

template <typename S>
void launch(const LinearArgs& args, LaunchPlace place) {
  const int levels = stack_levels(args.w);
  const auto kernel = args.result == LinearResult::silu_mul ? tiled_kernel<S, true> : tiled_kernel<S, false>;
  const simt::LaunchShape shape = {grid_of<S>(args), dim3(S::kThreads), shared_bytes<S>(levels), place};
  check(simt::launch(kernel, shape, args, Order(args.w), levels), "linear_tiled");
}

// Max dynamic shared memory of a block on the current device, in bytes.
size_t max_shared_bytes() {
  int device = 0, bytes = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
  return static_cast<size_t>(bytes);
}

using Small = Shape<2, 2, 2, 2, 2>;  // fits 32 balanced chunks in the 99 KB of compute capability 8.6 and 8.9
using Narrow = Shape<2, 2, 2, 4, 3>;
using Wide = Shape<2, 4, 4, 4, 3>;
constexpr int kWideLevels = 1;         // max stack levels for which Wide is taken
constexpr unsigned kManyBlocks = 128;  // about one for each multiprocessor

}  // namespace

void linear_tiled(const LinearArgs& args, LaunchPlace place, TileShape shape) {
  const dim3 grid = grid_of<Wide>(args);
  const int levels = stack_levels(args.w);
  const size_t most = max_shared_bytes();
  if (shape == TileShape::automatic) shape = grid.x * grid.y >= kManyBlocks ? TileShape::wide : TileShape::narrow;
  if (shape == TileShape::wide && levels <= kWideLevels && shared_bytes<Wide>(levels) <= most) {
    return launch<Wide>(args, place);
  }
  if (shape != TileShape::small && shared_bytes<Narrow>(levels) <= most) return launch<Narrow>(args, place);
  launch<Small>(args, place);
}

}  // namespace nds::cuda
