// y = x W^T for any types and chunk edges: a warp takes one output column of a few rows.
#include "core/program/packed_linear.h"
#include "cuda/check.h"
#include "cuda/kernels/block_sum.h"
#include "cuda/kernels/linear_paths.h"
#include "cuda/kernels/linear_result.h"

namespace nds::cuda {
namespace {

constexpr int kRows = 4, kWarps = 8;

// Sums of output column `column` for x rows first_row …: lane i < kRows ends with the roots of x row first_row + i on
// its stack.
template <DType kX, DType kW>
__device__ void column_sums(const LinearArgs& args, int column, int first_row, float (&stack)[kMaxDepth]) {
  const int lane = threadIdx.x % 32;
  const int64_t weight = column * args.w.ld;
  int depth = 0;
  for (int c = 0; c < args.w.num_chunks; c++) {
    float sums[kRows] = {};
    const int end = args.w.chunk_edges[c + 1];
    for (int k = args.w.chunk_edges[c] + lane; k < end; k += 32) {
      const float w = load_element(args.w.data, weight + k, kW);
      NDS_UNROLL()
      for (int i = 0; i < kRows; i++) {
        if (first_row + i >= args.m) break;
        sums[i] = __fmaf_rn(load_element(args.x, (first_row + i) * args.ldx + k, kX), w, sums[i]);
      }
    }
    float mine = 0;
    NDS_UNROLL()
    for (int i = 0; i < kRows; i++) {
      if (first_row + i >= args.m) break;
      const float sum = warp_sum(sums[i]);
      if (lane == i) mine = sum;
    }
    for (int i = 0; i < args.w.merges[c]; i++) mine = __fadd_rn(stack[--depth], mine);
    stack[depth++] = mine;
  }
}

template <DType kX, DType kW>
__global__ void __launch_bounds__(kWarps * 32) plain_kernel(LinearArgs args) {
  simt::wait_for_previous();
  const int lane = threadIdx.x % 32, first_row = blockIdx.y * kRows;
  const int column = blockIdx.x * kWarps + threadIdx.x / 32;
  const bool is_product = args.result == LinearResult::silu_mul;
  const bool has_row = lane < kRows && first_row + lane < args.m;
  float stack[kMaxDepth];
  if (column < result_columns(args)) {
    float gate = 0, up = 0;
    if (!is_product || column < args.width) {
      column_sums<kX, kW>(args, column, first_row, stack);
      gate = stack[0];
    }
    if (!is_product) {
      for (int root = 0; has_row && root < args.w.num_roots; root++) {
        store_sum(args, root, first_row + lane, column, stack[root]);
      }
    } else {
      if (column < args.width) {
        column_sums<kX, kW>(args, args.up_offset + column, first_row, stack);
        up = stack[0];
      }
      if (has_row) store_product(args, first_row + lane, column, gate, up);
    }
  }
}

template <DType kX>
auto kernel_for(DType weights) {
  return weights == DType::f32    ? plain_kernel<kX, DType::f32>
         : weights == DType::bf16 ? plain_kernel<kX, DType::bf16>
                                  : plain_kernel<kX, DType::f16>;
}

}  // namespace

void linear_plain(const LinearArgs& args, LaunchPlace place) {
  const auto kernel =
      args.x_dtype == DType::f32 ? kernel_for<DType::f32>(args.w.dtype) : kernel_for<DType::bf16>(args.w.dtype);
  const unsigned columns = (result_columns(args) + kWarps - 1) / kWarps, rows = (args.m + kRows - 1) / kRows;
  check(simt::launch(kernel, {dim3(columns, rows), dim3(kWarps * 32), 0, place}, args), "linear_plain");
}

}  // namespace nds::cuda
