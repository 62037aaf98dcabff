// Values as integers of the same order, and prefixes of the order "value descending, then id ascending".
#pragma once
#include "cuda/math.h"

namespace nds::cuda {

// Larger for larger values; equal for 0 and -0.
__device__ inline uint32_t key_of(float x) {
  const uint32_t bits = float_to_bits(__fadd_rn(x, 0.0f));
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ inline float value_of(uint32_t key) {
  return bits_to_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}
constexpr uint32_t kKeyOfMinusInfinity = 0x007fffffu;

// A prefix of the order: all keys above `key`, and the first num_equal of those equal to it.
struct Cut {
  uint32_t key;
  uint64_t num_equal;
  bool is_whole;  // whether those are all keys equal to `key`
};
// All but -inf.
__device__ inline Cut all_numbers() { return {kKeyOfMinusInfinity, 0, false}; }

}  // namespace nds::cuda
