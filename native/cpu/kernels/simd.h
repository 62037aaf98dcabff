// Sixteen lanes at a time: one vocabulary for every instruction set. All but portable give the same bits.
//
// F32x16, I32x16 and Mask16 are values. Common to all four implementations (simd_avx512.h, simd_avx2.h, simd_neon.h,
// simd_portable.h):
//   set1 zero load store load_n store_n   _n touches the first n (0 … 16) lanes only; the others load as zero
//   + - * / sqrt fma                      fma(a, b, c) = a * b + c, rounded once; on portable it is rounded twice
//   min max                               min(a, b) = a < b ? a : b, max(a, b) = a > b ? a : b: with a NaN in either, b
//   lt le eq select any bits first_n      comparisons with NaN are false; select(mask, a, b) = mask ? a : b
//   round_to_i32 to_f32 as_i32 as_f32     round_to_i32 is to nearest, ties to even, for |x| < 2^22
//   set1_i32 load_i32 store_i32 + - & | ^ shl<n> shr<n> mul_lo mul_hi eq lt select
//                                         shr shifts in zeros, mul_hi is unsigned, lt is signed
//   load_i8 store_i8                      sign-extending; store_i8 is for lanes from -128 to 127
//   load_bf16 load_f16 (and _n)           exact widening; NaNs become quiet
//   store_bf16 (and _n)                   to nearest, ties to even, by integers: denormals kept, NaNs stay NaNs
//   reduce_add reduce_max                 joins lanes i and i + 8, then i and i + 4, i + 2, i + 1
//   prefetch prefetch_l2                  prefetch_l2 leaves L1 alone, whose few pending misses a burst would exhaust
// simd_math.h adds exp and log. No libm, no templates of the standard library: the linker keeps one copy of a template,
// which may be compiled for an instruction set that the processor lacks.
#pragma once
#include <cstdint>
#include <cstring>

#include "cpu/kernels/isa_traits.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Each with an empty asm: g++ 12 takes a loop in which it sees nothing but prefetches for an empty one, and drops it.
inline void prefetch(const void* p) {
  __builtin_prefetch(p);
  asm volatile("");
}
inline void prefetch_l2(const void* p) {
  __builtin_prefetch(p, 0, 2);
  asm volatile("");
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE

#if NDS_AVX512
#include "cpu/kernels/simd_avx512.h"
#elif NDS_AVX2
#include "cpu/kernels/simd_avx2.h"
#elif NDS_NEON
#include "cpu/kernels/simd_neon.h"
#else
#include "cpu/kernels/simd_portable.h"
#endif

#if !NDS_AVX512  // which loads half-words by a mask
namespace nds::cpu::NDS_ISA_NAMESPACE {

inline F32x16 load_bf16_n(const uint16_t* p, int n) {
  uint16_t lanes[16] = {};
  std::memcpy(lanes, p, static_cast<size_t>(n) * 2);
  return load_bf16(lanes);
}
inline F32x16 load_f16_n(const uint16_t* p, int n) {
  uint16_t lanes[16] = {};
  std::memcpy(lanes, p, static_cast<size_t>(n) * 2);
  return load_f16(lanes);
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
#endif

#include "cpu/kernels/simd_math.h"
