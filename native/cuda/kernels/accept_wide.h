// Arithmetic of 128-bit integers, which hold products of masses and totals exactly: cpu/kernels/wide_int.h for the
// device.
#pragma once
#include "cuda/kernels/sample_best.h"

namespace nds::cuda {

using WideInt = unsigned __int128;

__device__ inline uint64_t high_half(WideInt x) { return static_cast<uint64_t>(x >> 64); }
__device__ inline uint64_t low_half(WideInt x) { return static_cast<uint64_t>(x); }

__device__ inline double to_double(WideInt x) {
  return __dadd_rn(__dmul_rn(static_cast<double>(high_half(x)), 18446744073709551616.0),
                   static_cast<double>(low_half(x)));
}

// floor(factor * 2^-64 * x)
__device__ inline WideInt fraction_of(uint64_t factor, WideInt x) {
  return WideInt{factor} * high_half(x) + (WideInt{factor} * low_half(x) >> 64);
}

// coin * 2^-64 < numerator / denominator
__device__ inline bool is_below(uint64_t coin, WideInt numerator, WideInt denominator) {
  return fraction_of(coin, denominator) < numerator;
}

// Number of bits up to the highest set one; x is not 0.
__device__ inline int num_bits(WideInt x) {
  return high_half(x) != 0 ? 128 - __clzll(static_cast<long long>(high_half(x)))
                           : 64 - __clzll(static_cast<long long>(low_half(x)));
}

// The same in all threads of a block of kThreads. Ends with a barrier.
template <int kThreads>
__device__ WideInt block_sum_wide(WideInt value) {
  SIMT_SHARED_ARRAY(uint64_t, halves, kThreads / 32 * 2);
  for (int offset = 16; offset > 0; offset /= 2) {
    const uint64_t high = __shfl_xor_sync(kAllLanes, static_cast<unsigned long long>(high_half(value)), offset);
    const uint64_t low = __shfl_xor_sync(kAllLanes, static_cast<unsigned long long>(low_half(value)), offset);
    value += WideInt{high} << 64 | low;
  }
  const int warp = threadIdx.x / 32;
  if (threadIdx.x % 32 == 0) {
    halves[2 * warp] = high_half(value);
    halves[2 * warp + 1] = low_half(value);
  }
  __syncthreads();
  WideInt sum = 0;
  for (int w = 0; w < kThreads / 32; w++) sum += WideInt{halves[2 * w]} << 64 | halves[2 * w + 1];
  __syncthreads();
  return sum;
}

}  // namespace nds::cuda
