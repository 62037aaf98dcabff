// exp and log of single values, operation by operation those of cpu/kernels/simd_math.h, so that host and device agree
// to the bit: libm's and the device library's do not. Each FMA is explicit.
#pragma once
#include <cstdint>
#include <cstring>

#include "cuda/device.h"

namespace nds::cuda {

__device__ inline float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
__device__ inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}
__device__ inline float infinity() { return bits_to_float(0x7f800000u); }

constexpr float kLn2High = 0.693359375f;
constexpr float kLn2Low = -2.12194440054690583e-4f;

// e^x within 2 ulp. Results below 2^-126 are 0; exp(0) = 1, exp(-inf) = 0, exp(inf) = inf, exp(NaN) = NaN.
__device__ inline float exact_exp(float x) {
  const float high = 88.72283f, low = -87.336540f;
  const float clamped = fmaxf(fminf(x, high), low);
  const int n = __float2int_rn(__fmul_rn(clamped, 1.44269504089f));
  const float nf = static_cast<float>(n);
  const float r = __fmaf_rn(nf, -kLn2Low, __fmaf_rn(nf, -kLn2High, clamped));
  float p = 1.0f / 5040;
  p = __fmaf_rn(p, r, 1.0f / 720);
  p = __fmaf_rn(p, r, 1.0f / 120);
  p = __fmaf_rn(p, r, 1.0f / 24);
  p = __fmaf_rn(p, r, 1.0f / 6);
  p = __fmaf_rn(p, r, 0.5f);
  p = __fadd_rn(__fmaf_rn(p, __fmul_rn(r, r), r), 1.0f);
  float y = bits_to_float(float_to_bits(p) + (static_cast<uint32_t>(n) << 23));
  if (x < low) y = 0;
  if (high < x) y = infinity();
  return x == x ? y : x;
}

// ln x within 2 ulp, denormals included; log(1) = 0, log(0) = -inf, log(inf) = inf, log(x < 0) = log(NaN) = NaN.
__device__ inline float exact_log(float x) {
  const bool tiny = x < bits_to_float(0x00800000u);
  const uint32_t bits = float_to_bits(tiny ? __fmul_rn(x, 33554432.0f) : x);
  const uint32_t from_sqrt_half = bits - 0x3f3504f3u;
  const int shifted = static_cast<int>((from_sqrt_half ^ 0x80000000u) >> 23) - 256;
  const int e = shifted - (tiny ? 25 : 0);
  const float m = bits_to_float((from_sqrt_half & 0x7fffffu) + 0x3f3504f3u);
  const float ef = static_cast<float>(e);
  const float f = __fsub_rn(m, 1.0f);
  const float s = __fdiv_rn(f, __fadd_rn(2.0f, f));
  const float z = __fmul_rn(s, s);
  float r = __fmaf_rn(z, 2.0f / 9, 2.0f / 7);
  r = __fmaf_rn(z, r, 2.0f / 5);
  r = __fmaf_rn(z, r, 2.0f / 3);
  r = __fmul_rn(r, z);
  const float half_f2 = __fmul_rn(__fmul_rn(0.5f, f), f);
  const float small = __fsub_rn(half_f2, __fmaf_rn(s, __fadd_rn(half_f2, r), __fmul_rn(ef, kLn2Low)));
  float y = __fsub_rn(__fmul_rn(ef, kLn2High), __fsub_rn(small, f));
  if (x == infinity()) y = x;
  if (x == 0) y = -infinity();
  return 0 <= x ? y : bits_to_float(0x7fc00000u);
}

// x / (1 + exp(-x))
__device__ inline float silu(float x) { return __fdiv_rn(x, __fadd_rn(1.0f, exact_exp(__fsub_rn(0.0f, x)))); }

}  // namespace nds::cuda
