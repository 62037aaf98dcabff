// Sums over a warp and over a block, in an order that the size of the block fixes.
#pragma once
#include "cuda/device.h"

namespace nds::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

using simt::warp_sum;

// The same value in all threads of a block of kThreads. May be called again only after another barrier.
template <int kThreads>
__device__ float block_sum(float value) {
  SIMT_SHARED_ARRAY(float, warp_sums, kThreads / 32);
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = value;
  __syncthreads();
  float total = warp_sums[0];
  for (int w = 1; w < kThreads / 32; w++) total = __fadd_rn(total, warp_sums[w]);
  return total;
}

}  // namespace nds::cuda
