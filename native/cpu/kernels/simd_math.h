// exp and log on the lanes of simd.h, by our own polynomials: libm's results differ between processors.
#pragma once
#include <cstdint>

namespace nds::cpu::NDS_ISA_NAMESPACE {

// ln 2 in two parts; the product of the first with an integer below 2^15 is exact.
constexpr float kLn2High = 0.693359375f;
constexpr float kLn2Low = -2.12194440054690583e-4f;

// a * 2^n by adding to the exponent: a and the result must be normal.
inline F32x16 scale2(F32x16 a, I32x16 n) { return as_f32(as_i32(a) + shl<23>(n)); }

// e^x within 2 ulp for x from -87.336540 to 88.72283: a normal result. Its NaN is NaN, of others any value.
inline F32x16 exp_of_normal(F32x16 x) {
  const I32x16 n = round_to_i32(x * set1(1.44269504089f));
  const F32x16 nf = to_f32(n);
  const F32x16 r = fma(nf, set1(-kLn2Low), fma(nf, set1(-kLn2High), x));
  // Taylor: |r| <= ln 2 / 2, so the first term left out is below 2^-27.
  F32x16 p = set1(1.0f / 5040);
  p = fma(p, r, set1(1.0f / 720));
  p = fma(p, r, set1(1.0f / 120));
  p = fma(p, r, set1(1.0f / 24));
  p = fma(p, r, set1(1.0f / 6));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r * r, r) + set1(1.0f);
  return scale2(p, n);
}

constexpr float kExpLow = -87.336540f;  // smallest x whose e^x is normal

// e^x within 2 ulp. Results below 2^-126 are 0; exp(0) = 1, exp(-inf) = 0, exp(inf) = inf, exp(NaN) = NaN.
inline F32x16 exp(F32x16 x) {
  const F32x16 high = set1(88.72283f);  // largest x with a finite result
  const F32x16 low = set1(kExpLow);
  F32x16 y = exp_of_normal(max(min(x, high), low));
  y = select(lt(x, low), zero(), y);
  y = select(lt(high, x), set1(__builtin_inff()), y);
  return select(eq(x, x), y, x);
}

// exp(x) for x <= 0, and NaN for NaN; of x > 0 any value.
inline F32x16 exp_of_negative(F32x16 x) {
  const F32x16 low = set1(kExpLow);
  return select(lt(x, low), zero(), exp_of_normal(max(low, x)));
}

// ln x within 2 ulp, denormals included; log(1) = 0, log(0) = -inf, log(inf) = inf, log(x < 0) = log(NaN) = NaN.
inline F32x16 log(F32x16 x) {
  const Mask16 tiny = lt(x, set1(0x1p-126f));
  const I32x16 bits_of_x = as_i32(select(tiny, x * set1(0x1p25f), x));
  // x = m * 2^e with m in [sqrt(1/2), sqrt(2)).
  const I32x16 from_sqrt_half = bits_of_x - set1_i32(0x3f3504f3);
  // An arithmetic shift by 23, made of a logical one.
  const I32x16 shifted = shr<23>(from_sqrt_half ^ set1_i32(INT32_MIN)) - set1_i32(256);
  const I32x16 e = shifted - select(tiny, set1_i32(25), set1_i32(0));
  const F32x16 m = as_f32((from_sqrt_half & set1_i32(0x7fffff)) + set1_i32(0x3f3504f3));
  const F32x16 ef = to_f32(e);
  // ln(1 + f) = 2 atanh(s) with s = f / (2 + f), |s| <= 0.172; the series in z = s^2 is cut below 2^-28.
  const F32x16 f = m - set1(1.0f);
  const F32x16 s = f / (set1(2.0f) + f);
  const F32x16 z = s * s;
  F32x16 r = fma(z, set1(2.0f / 9), set1(2.0f / 7));
  r = fma(z, r, set1(2.0f / 5));
  r = fma(z, r, set1(2.0f / 3));
  r = r * z;
  // 2s = f - s * f, and s * f = f^2 / 2 - s * f^2 / 2: the large parts cancel exactly.
  const F32x16 half_f2 = set1(0.5f) * f * f;
  const F32x16 small = half_f2 - fma(s, half_f2 + r, ef * set1(kLn2Low));
  F32x16 y = ef * set1(kLn2High) - (small - f);
  y = select(eq(x, set1(__builtin_inff())), x, y);
  y = select(eq(x, zero()), set1(-__builtin_inff()), y);
  return select(le(zero(), x), y, set1(__builtin_nanf("")));
}

// One value, with the same bits as a lane.
inline float exp1(float x) {
  float lanes[16];
  store(lanes, exp(set1(x)));
  return lanes[0];
}
inline float log1(float x) {
  float lanes[16];
  store(lanes, log(set1(x)));
  return lanes[0];
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
