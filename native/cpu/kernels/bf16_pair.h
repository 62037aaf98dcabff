// The two bf16 of each 32-bit lane as fp32, and multiply-adds on AVX2 whose sums stay in registers.
#pragma once
#include <cstdint>

#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

#if NDS_AVX2
// By a shuffle: a shift would take a port of the multiply-adds on Intel's cores.
inline F32x16 low_bf16(I32x16 pair) {
  const __m256i upper = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(-1, -1, 0, 1, -1, -1, 4, 5, -1, -1, 8, 9, -1, -1, 12, 13));  // -1 = zero
  return as_f32(I32x16{_mm256_shuffle_epi8(pair.lo, upper), _mm256_shuffle_epi8(pair.hi, upper)});
}
// A zero made where it is used, at no cost. The compiler would hold a zero, or a mask, in a register throughout and
// spill a sum for it.
inline __m256i fresh_zero() {
  __m256i zero;
  asm volatile("vpxor %0, %0, %0" : "=x"(zero));
  return zero;
}
inline F32x16 high_bf16(I32x16 pair) {
  const __m256i zero = fresh_zero();
  return as_f32(I32x16{_mm256_blend_epi16(zero, pair.lo, 0xaa), _mm256_blend_epi16(zero, pair.hi, 0xaa)});
}
// sum + a * b, in the registers of sum; b is the same in all lanes. With all sixteen registers taken, the compiler
// would overwrite a or b with the result of an fma and spill sums to the stack, where the next addition waits for them.
inline F32x16 fma_in_place(F32x16 a, F32x16 b, F32x16 sum) {
  asm("vfmadd231ps %2, %1, %0" : "+x"(sum.lo) : "x"(a.lo), "x"(b.lo));
  asm("vfmadd231ps %2, %1, %0" : "+x"(sum.hi) : "x"(a.hi), "x"(b.lo));
  return sum;
}
#else
inline F32x16 low_bf16(I32x16 pair) { return as_f32(shl<16>(pair)); }
inline F32x16 high_bf16(I32x16 pair) { return as_f32(pair & set1_i32(static_cast<int32_t>(0xffff0000u))); }
inline F32x16 fma_in_place(F32x16 a, F32x16 b, F32x16 sum) { return fma(a, b, sum); }
#endif

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
