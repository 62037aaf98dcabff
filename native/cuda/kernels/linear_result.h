// The epilogue of linear(), the same in all its kernels.
#pragma once
#include "cuda/kernels.h"
#include "cuda/kernels/element.h"
#include "cuda/kernels/unroll.h"
#include "cuda/math.h"

namespace nds::cuda {

__device__ inline float biased(const LinearArgs& args, float sum, int column) {
  return args.bias == nullptr ? sum : __fadd_rn(sum, args.bias[column]);
}

// LinearResult::store and add.
__device__ inline void store_sum(const LinearArgs& args, int root, int row, int column, float sum) {
  float* const y = args.y + root * args.root_stride + row * args.ldy + column;
  const float value = args.w.num_roots == 1 ? biased(args, sum, column) : sum;
  *y = args.result == LinearResult::add ? __fadd_rn(*y, value) : value;
}

// LinearResult::silu_mul, for any column below ld_out: 0 past the width.
__device__ inline void store_product(const LinearArgs& args, int row, int column, float gate, float up) {
  float value = 0;
  if (column < args.width) {
    value = __fmul_rn(silu(biased(args, gate, column)), biased(args, up, args.up_offset + column));
  }
  store_activation(args.out, row * args.ld_out + column, value, args.x_dtype);
}

// Columns that a launch covers.
__host__ __device__ inline int result_columns(const LinearArgs& args) {
  return args.result == LinearResult::silu_mul ? static_cast<int>(args.ld_out) : args.w.num_rows;
}

// Sums [16 output columns, 8 rows] over a run of 32 columns of k. Lane (r, q) = (lane / 4, lane % 4) holds elements 8 q
// … 8 q + 7 of the run: of weight rows r (low) and r + 8 (high), and of activation row r. The two mma take the elements
// of k in the same permuted order for weights and activations, so that every fragment is one 16-byte load.
// acc[0], acc[1]: output column r of rows 2 q, 2 q + 1; acc[2], acc[3]: output column r + 8.
struct WeightRun {
  uint32_t first[4], second[4];
  __device__ WeightRun(const uint4& low, const uint4& high)
      : first{low.x, high.x, low.y, high.y}, second{low.z, high.z, low.w, high.w} {}
};
__device__ inline void multiply_run(float (&acc)[4], const WeightRun& w, const uint4& x) {
  simt::mma_bf16(acc, w.first, x.x, x.y);
  simt::mma_bf16(acc, w.second, x.z, x.w);
}

}  // namespace nds::cuda
