// Operators on whole rows: embedding, RMS norm, gathering, SiLU, sums.
#include "cuda/check.h"
#include "cuda/kernels.h"
#include "cuda/kernels/block_sum.h"
#include "cuda/kernels/element.h"
#include "cuda/kernels/join.h"
#include "cuda/math.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 256;

int blocks_for(int64_t count) {
  const int64_t blocks = (count + kThreads - 1) / kThreads;
  return static_cast<int>(blocks < 1 ? 1 : blocks > 65535 ? 65535 : blocks);
}
// Grid (blocks of threads with four columns each, rows); past 65535 rows the kernels loop.
dim3 grid_for(int rows, int64_t columns) { return dim3(blocks_for((columns + 3) / 4), rows > 65535 ? 65535 : rows); }

// Stores four elements of an activation from element `index` on, a multiple of 4.
__device__ void store_activation4(void* base, int64_t index, const float (&values)[4], DType dtype) {
  if (dtype == DType::f32) {
    static_cast<float4*>(base)[index / 4] = {values[0], values[1], values[2], values[3]};
  } else {
    __nv_bfloat162* const out = static_cast<__nv_bfloat162*>(base) + index / 2;
    out[0] = __floats2bfloat162_rn(values[0], values[1]);
    out[1] = __floats2bfloat162_rn(values[2], values[3]);
  }
}

__global__ void __launch_bounds__(kThreads) embedding_kernel(EmbeddingArgs args) {
  simt::wait_for_previous();
  const int64_t row = blockIdx.x;
  const int64_t index = static_cast<int64_t>(args.token_ids[row]) - args.first_row;
  const bool is_here = index >= 0 && index < args.num_rows;
  for (int64_t i = threadIdx.x; i < args.ld_out; i += kThreads) {
    const bool has_value = is_here && i < args.width;
    args.out[row * args.ld_out + i] =
        has_value ? load_element(args.table, index * args.table_ld + i, args.table_dtype) : 0;
  }
}

// One block per row. Each thread sums its columns in order, four at a time; then block_sum adds the sums of the
// threads.
template <int kNumThreads>
__global__ void __launch_bounds__(kNumThreads) rms_norm_kernel(RmsNormArgs args) {
  simt::wait_for_previous();
  const int64_t row = blockIdx.x;
  float* const x = args.x + row * args.ldx;
  const float* const addend = args.addend == nullptr ? nullptr : args.addend + row * args.ld_addend;
  const int num_vectors = (args.width + 3) / 4;
  float squares = 0;
  for (int v = threadIdx.x; v < num_vectors; v += kNumThreads) {
    float4 value = reinterpret_cast<const float4*>(x)[v];
    if (addend != nullptr) {
      const float4 more = reinterpret_cast<const float4*>(addend)[v];
      value.x = __fadd_rn(value.x, more.x);
      value.y = __fadd_rn(value.y, more.y);
      value.z = __fadd_rn(value.z, more.z);
      value.w = __fadd_rn(value.w, more.w);
      reinterpret_cast<float4*>(x)[v] = value;
    }
    const float parts[4] = {value.x, value.y, value.z, value.w};
    for (int j = 0; j < 4; j++) {
      if (v * 4 + j < args.width) squares = __fmaf_rn(parts[j], parts[j], squares);
    }
  }
  const float mean = __fdiv_rn(block_sum<kNumThreads>(squares), static_cast<float>(args.width));
  const float scale = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, args.eps)));
  // Each thread reads only what it wrote itself: no barrier.
  const int64_t out_vectors = args.ld_out / 4;
  for (int64_t v = threadIdx.x; v < out_vectors; v += kNumThreads) {
    float result[4] = {0, 0, 0, 0};
    if (v < num_vectors) {
      const float4 value = reinterpret_cast<const float4*>(x)[v];
      const float parts[4] = {value.x, value.y, value.z, value.w};
      for (int j = 0; j < 4; j++) {
        if (v * 4 + j < args.width) result[j] = __fmul_rn(__fmul_rn(parts[j], scale), args.weight[v * 4 + j]);
      }
    }
    store_activation4(args.out, row * args.ld_out + v * 4, result, args.out_dtype);
  }
}

// Elements of x past the width are not copied: the padding of out is zeros.
__global__ void __launch_bounds__(kThreads) gather_rows_kernel(GatherRowsArgs args) {
  simt::wait_for_previous();
  const int64_t row = blockIdx.x, index = args.indices[row];
  const int64_t size = args.element_size, valid = index < 0 ? 0 : args.width * size;  // bytes
  const uint8_t* const from = static_cast<const uint8_t*>(args.x) + (index < 0 ? 0 : index * args.ldx * size);
  uint8_t* const to = static_cast<uint8_t*>(args.out) + row * args.ld_out * size;
  for (int64_t i = threadIdx.x * 16; i < args.ld_out * size; i += kThreads * 16) {
    uint4 value = i < valid ? *reinterpret_cast<const uint4*>(from + i) : uint4{0, 0, 0, 0};
    uint32_t* const words[4] = {&value.x, &value.y, &value.z, &value.w};
    for (int word = 0; word < 4; word++) {
      const int64_t left = valid - i - 4 * word;
      if (left < 4) *words[word] = left < 2 ? 0 : *words[word] & 0xffffu;
    }
    *reinterpret_cast<uint4*>(to + i) = value;
  }
}

// Four columns per thread; grid (blocks along a row, rows).
template <bool kVectors>
__global__ void __launch_bounds__(kThreads) silu_mul_kernel(SiluMulArgs args) {
  simt::wait_for_previous();
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * 4;
  if (column >= args.ld_out) return;
  for (int64_t row = blockIdx.y; row < args.rows; row += gridDim.y) {
    const float* const gate = args.gate + row * args.ld + column;
    const float* const up = args.up + row * args.ld + column;
    float result[4] = {0, 0, 0, 0};
    if (kVectors && column + 4 <= args.width) {
      const float4 g = *reinterpret_cast<const float4*>(gate), u = *reinterpret_cast<const float4*>(up);
      result[0] = __fmul_rn(silu(g.x), u.x);
      result[1] = __fmul_rn(silu(g.y), u.y);
      result[2] = __fmul_rn(silu(g.z), u.z);
      result[3] = __fmul_rn(silu(g.w), u.w);
    } else {
      for (int j = 0; j < 4; j++) {
        if (column + j < args.width) result[j] = __fmul_rn(silu(gate[j]), up[j]);
      }
    }
    store_activation4(args.out, row * args.ld_out + column, result, args.out_dtype);
  }
}

__global__ void __launch_bounds__(kThreads) add_kernel(AddArgs args) {
  simt::wait_for_previous();
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * 4;
  for (int64_t row = blockIdx.y; row < args.rows; row += gridDim.y) {
    const float* const a = args.a + row * args.lda + column;
    const float* const b = args.b + row * args.ldb + column;
    float* const out = args.out + row * args.ld_out + column;
    if (column + 4 <= args.width) {
      const float4 x = *reinterpret_cast<const float4*>(a), y = *reinterpret_cast<const float4*>(b);
      *reinterpret_cast<float4*>(out) = {__fadd_rn(x.x, y.x), __fadd_rn(x.y, y.y), __fadd_rn(x.z, y.z),
                                         __fadd_rn(x.w, y.w)};
    } else {
      for (int j = 0; column + j < args.width; j++) out[j] = __fadd_rn(a[j], b[j]);
    }
  }
}

__global__ void __launch_bounds__(kThreads) join_kernel(JoinArgs args) {
  simt::wait_for_previous();
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < args.count;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    float sum = join_inputs<float>(
        args.num_inputs, [&](int input) { return args.inputs[input][i]; },
        [&](int input) { return args.merges[input]; });
    if (args.bias != nullptr) sum = __fadd_rn(sum, args.bias[i % args.width]);
    args.out[i] = sum;
  }
}

}  // namespace

void embedding(const EmbeddingArgs& args, LaunchPlace place) {
  if (args.rows == 0) return;
  check(simt::launch(embedding_kernel, {dim3(args.rows), dim3(kThreads), 0, place}, args), "embedding");
}

void rms_norm(const RmsNormArgs& args, LaunchPlace place) {
  if (args.rows == 0) return;
  // The number of threads, and so the order of the sum, follows from the width alone.
  const auto run = [&](auto kernel, int threads) {
    check(simt::launch(kernel, {dim3(args.rows), dim3(threads), 0, place}, args), "rms_norm");
  };
  if (args.width <= 512) return run(rms_norm_kernel<64>, 64);
  if (args.width <= 2048) return run(rms_norm_kernel<256>, 256);
  run(rms_norm_kernel<512>, 512);
}

void gather_rows(const GatherRowsArgs& args, LaunchPlace place) {
  if (args.rows == 0) return;
  check(simt::launch(gather_rows_kernel, {dim3(args.rows), dim3(kThreads), 0, place}, args), "gather_rows");
}

void silu_mul(const SiluMulArgs& args, LaunchPlace place) {
  if (args.rows == 0) return;
  // up may begin at any column of the rows that it shares with gate, hence at any multiple of 4 bytes.
  const bool has_vectors = (reinterpret_cast<uintptr_t>(args.gate) | reinterpret_cast<uintptr_t>(args.up)) % 16 == 0;
  const auto kernel = has_vectors ? silu_mul_kernel<true> : silu_mul_kernel<false>;
  const simt::LaunchShape shape{grid_for(args.rows, args.ld_out), dim3(kThreads), 0, place};
  check(simt::launch(kernel, shape, args), "silu_mul");
}

void add(const AddArgs& args, LaunchPlace place) {
  if (args.rows == 0) return;
  check(simt::launch(add_kernel, {grid_for(args.rows, args.width), dim3(kThreads), 0, place}, args), "add");
}

void join(const JoinArgs& args, LaunchPlace place) {
  if (args.count == 0) return;
  check(simt::launch(join_kernel, {dim3(blocks_for(args.count)), dim3(kThreads), 0, place}, args), "join");
}

}  // namespace nds::cuda
