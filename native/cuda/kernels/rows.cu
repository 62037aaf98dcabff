// Operators on whole rows: embedding, RMS norm, gathering, SiLU, sums.
#include "cuda/check.h"
#include "cuda/kernels.h"
#include "cuda/kernels/block_sum.h"
#include "cuda/kernels/element.h"
#include "cuda/math.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 256;

int blocks_for(int64_t count) {
  const int64_t blocks = (count + kThreads - 1) / kThreads;
  return static_cast<int>(blocks < 1 ? 1 : blocks > 65535 ? 65535 : blocks);
}

__global__ void __launch_bounds__(kThreads) embedding_kernel(EmbeddingArgs args) {
  cudaGridDependencySynchronize();
  const int64_t row = blockIdx.x;
  const int64_t index = static_cast<int64_t>(args.token_ids[row]) - args.first_row;
  const bool is_here = index >= 0 && index < args.num_rows;
  for (int64_t i = threadIdx.x; i < args.ld_out; i += kThreads) {
    const bool has_value = is_here && i < args.width;
    args.out[row * args.ld_out + i] =
        has_value ? load_element(args.table, index * args.table_ld + i, args.table_dtype) : 0;
  }
  cudaTriggerProgrammaticLaunchCompletion();
}

// A row a block. Each thread sums its columns in order, four at a time; then the threads' sums meet in one order.
template <int kNumThreads>
__global__ void __launch_bounds__(kNumThreads) rms_norm_kernel(RmsNormArgs args) {
  cudaGridDependencySynchronize();
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
  // Each thread reads what it wrote itself.
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
    if (args.out_dtype == DType::f32) {
      reinterpret_cast<float4*>(args.out)[row * out_vectors + v] = {result[0], result[1], result[2], result[3]};
    } else {
      __nv_bfloat162* const out = static_cast<__nv_bfloat162*>(args.out) + (row * out_vectors + v) * 2;
      out[0] = __floats2bfloat162_rn(result[0], result[1]);
      out[1] = __floats2bfloat162_rn(result[2], result[3]);
    }
  }
  cudaTriggerProgrammaticLaunchCompletion();
}

__global__ void __launch_bounds__(kThreads) gather_rows_kernel(GatherRowsArgs args) {
  cudaGridDependencySynchronize();
  const int64_t row = blockIdx.x, index = args.indices[row];
  const int64_t words = args.ld_out * args.element_size / 4;
  const uint32_t* const from = static_cast<const uint32_t*>(args.x) + index * (args.ldx * args.element_size / 4);
  uint32_t* const to = static_cast<uint32_t*>(args.out) + row * words;
  for (int64_t i = threadIdx.x; i < words; i += kThreads) to[i] = index < 0 ? 0 : from[i];
}

__global__ void __launch_bounds__(kThreads) silu_mul_kernel(SiluMulArgs args) {
  cudaGridDependencySynchronize();
  const int64_t count = args.rows * args.ld_out;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t row = i / args.ld_out, column = i % args.ld_out, at = row * args.ld + column;
    const float value = column < args.width ? __fmul_rn(silu(args.gate[at]), args.up[at]) : 0;
    store_activation(args.out, i, value, args.out_dtype);
  }
}

__global__ void __launch_bounds__(kThreads) add_kernel(AddArgs args) {
  cudaGridDependencySynchronize();
  const int64_t count = static_cast<int64_t>(args.rows) * args.width;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t row = i / args.width, column = i % args.width;
    args.out[row * args.ld_out + column] = __fadd_rn(args.a[row * args.lda + column], args.b[row * args.ldb + column]);
  }
}

constexpr int kMaxJoinDepth = 16;

__global__ void __launch_bounds__(kThreads) join_kernel(JoinArgs args) {
  cudaGridDependencySynchronize();
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < args.count;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    float stack[kMaxJoinDepth];
    int depth = 0;
    for (int input = 0; input < args.num_inputs; input++) {
      float sum = args.inputs[input][i];
      for (int merge = 0; merge < args.merges[input]; merge++) sum = __fadd_rn(stack[--depth], sum);
      stack[depth++] = sum;
    }
    float sum = stack[0];
    if (args.bias != nullptr) sum = __fadd_rn(sum, args.bias[i % args.width]);
    args.out[i] = sum;
  }
}

}  // namespace

void embedding(const EmbeddingArgs& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  check(simt::launch(embedding_kernel, {dim3(args.rows), dim3(kThreads), 0, stream}, args), "embedding");
}

void rms_norm(const RmsNormArgs& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  // The number of threads, and so the order of the sum, follows from the width alone.
  const auto run = [&](auto kernel, int threads) {
    check(simt::launch(kernel, {dim3(args.rows), dim3(threads), 0, stream}, args), "rms_norm");
  };
  if (args.width <= 512) return run(rms_norm_kernel<64>, 64);
  if (args.width <= 2048) return run(rms_norm_kernel<256>, 256);
  run(rms_norm_kernel<512>, 512);
}

void gather_rows(const GatherRowsArgs& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  check(simt::launch(gather_rows_kernel, {dim3(args.rows), dim3(kThreads), 0, stream}, args), "gather_rows");
}

void silu_mul(const SiluMulArgs& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  const int blocks = blocks_for(args.rows * args.ld_out);
  check(simt::launch(silu_mul_kernel, {dim3(blocks), dim3(kThreads), 0, stream}, args), "silu_mul");
}

void add(const AddArgs& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  const int blocks = blocks_for(static_cast<int64_t>(args.rows) * args.width);
  check(simt::launch(add_kernel, {dim3(blocks), dim3(kThreads), 0, stream}, args), "add");
}

void join(const JoinArgs& args, cudaStream_t stream) {
  if (args.count == 0) return;
  check(simt::launch(join_kernel, {dim3(blocks_for(args.count)), dim3(kThreads), 0, stream}, args), "join");
}

}  // namespace nds::cuda
