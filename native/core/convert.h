// Scalar conversions of stored elements to fp32, exactly, and of fp32 to bf16, for conversions that happen once, at
// load.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/dtype.h"

namespace nds {

inline float bf16_to_f32(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

inline float f16_to_f32(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int mantissa = bits & 1023;
  float value;
  if (exponent == 31) {
    value = mantissa == 0 ? INFINITY : NAN;
  } else if (exponent == 0) {
    value = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    value = std::ldexp(static_cast<float>(mantissa | 1024), exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -value : value;
}

// The nearest bf16, ties to even; a NaN stays one.
inline uint16_t f32_to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16 | 64);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Whether fp16 holds a finite value, which is then in bits.
inline bool f32_to_f16_exactly(float value, uint16_t& bits) {
  const float magnitude = std::fabs(value);
  int exponent = 0;
  const float fraction = std::frexp(magnitude, &exponent);  // 0.5 … 1
  // In units of the last place: 2^-24 of a denormal, else 11 significant bits.
  const int unit = exponent < -13 ? -24 : exponent - 11;
  const float count = std::ldexp(fraction, exponent - unit);
  if (!(magnitude <= 65504.0f) || count != std::floor(count)) return false;
  const int whole = static_cast<int>(count);
  const int magnitude_bits = unit == -24 && whole < 1024 ? whole : (exponent + 14) * 1024 + whole - 1024;
  bits = static_cast<uint16_t>((std::signbit(value) ? 0x8000 : 0) | magnitude_bits);
  return true;
}

// A bf16 as it is, or widened.
inline void store_bf16(uint16_t bits, uint16_t& out) { out = bits; }
inline void store_bf16(uint16_t bits, float& out) { out = bf16_to_f32(bits); }

// out [count] = src [count] in fp32; src need not be aligned.
inline void widen(const uint8_t* src, DType dtype, int64_t count, float* out) {
  if (dtype == DType::f32) {
    std::memcpy(out, src, static_cast<size_t>(count) * 4);
    return;
  }
  for (int64_t i = 0; i < count; i++) {
    uint16_t bits;
    std::memcpy(&bits, src + i * 2, 2);
    out[i] = dtype == DType::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
  }
}

}  // namespace nds
