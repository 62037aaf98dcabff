// 128-bit integers, which hold products of masses and totals exactly.
#pragma once
#include <cstdint>

#ifndef NDS_ISA_NAMESPACE
#error "wide_int.h is for files that are compiled once per instruction set (*.isa.cc)"
#endif

namespace nds::cpu::NDS_ISA_NAMESPACE {

using WideInt = unsigned __int128;

inline uint64_t high_half(WideInt x) { return static_cast<uint64_t>(x >> 64); }
inline uint64_t low_half(WideInt x) { return static_cast<uint64_t>(x); }

// Within 1 ulp, and the same for equal integers.
inline double to_double(WideInt x) {
  return static_cast<double>(high_half(x)) * 0x1p64 + static_cast<double>(low_half(x));
}

// floor(factor * 2^-64 * x)
inline WideInt fraction_of(uint64_t factor, WideInt x) {
  return WideInt{factor} * high_half(x) + (WideInt{factor} * low_half(x) >> 64);
}

// coin * 2^-64 < numerator / denominator, exactly: for integers, a < b * 2^64 if and only if floor(a * 2^-64) < b.
inline bool is_below(uint64_t coin, WideInt numerator, WideInt denominator) {
  return fraction_of(coin, denominator) < numerator;
}

// Bit length of x, which is not 0.
inline int num_bits(WideInt x) {
  return high_half(x) != 0 ? 128 - __builtin_clzll(high_half(x)) : 64 - __builtin_clzll(low_half(x));
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
