// simd.h in plain C++, for processors without AVX2: loops over lanes that any compiler vectorizes.
#pragma once
#include <cstdint>
#include <cstring>

namespace nds::cpu::NDS_ISA_NAMESPACE {

struct F32x16 {
  float v[16];
};
struct I32x16 {
  int32_t v[16];
};
struct Mask16 {
  uint32_t v[16];  // all ones or all zeros
};

inline uint32_t as_u32(float a) {
  uint32_t wide;
  std::memcpy(&wide, &a, 4);
  return wide;
}
inline float as_float(uint32_t a) {
  float value;
  std::memcpy(&value, &a, 4);
  return value;
}

// A vector of type R whose lane i is f(i).
template <typename R, typename F>
inline R each(F f) {
  R r;
  for (int i = 0; i < 16; i++) r.v[i] = f(i);
  return r;
}

inline uint32_t lane_mask(bool on) { return on ? 0xffffffffu : 0u; }
inline Mask16 first_n(int n) {
  return each<Mask16>([&](int i) { return lane_mask(i < n); });
}
inline uint32_t bits(const Mask16& m) {
  uint32_t r = 0;
  for (int i = 0; i < 16; i++) r |= (m.v[i] & 1) << i;
  return r;
}
inline bool any(const Mask16& m) { return bits(m) != 0; }
inline Mask16 operator&(const Mask16& a, const Mask16& b) {
  return each<Mask16>([&](int i) { return a.v[i] & b.v[i]; });
}
inline Mask16 operator|(const Mask16& a, const Mask16& b) {
  return each<Mask16>([&](int i) { return a.v[i] | b.v[i]; });
}

inline F32x16 set1(float x) {
  return each<F32x16>([&](int) { return x; });
}
inline F32x16 zero() { return set1(0); }
inline F32x16 load(const float* p) {
  F32x16 r;
  std::memcpy(r.v, p, 64);
  return r;
}
inline F32x16 load_n(const float* p, int n) {
  F32x16 r = zero();
  std::memcpy(r.v, p, static_cast<size_t>(n) * 4);
  return r;
}
inline void store(float* p, const F32x16& a) { std::memcpy(p, a.v, 64); }
inline void store_n(float* p, const F32x16& a, int n) { std::memcpy(p, a.v, static_cast<size_t>(n) * 4); }

inline F32x16 operator+(const F32x16& a, const F32x16& b) {
  return each<F32x16>([&](int i) { return a.v[i] + b.v[i]; });
}
inline F32x16 operator-(const F32x16& a, const F32x16& b) {
  return each<F32x16>([&](int i) { return a.v[i] - b.v[i]; });
}
inline F32x16 operator*(const F32x16& a, const F32x16& b) {
  return each<F32x16>([&](int i) { return a.v[i] * b.v[i]; });
}
inline F32x16 operator/(const F32x16& a, const F32x16& b) {
  return each<F32x16>([&](int i) { return a.v[i] / b.v[i]; });
}
inline F32x16 fma(const F32x16& a, const F32x16& b, const F32x16& c) {
  return each<F32x16>([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
inline F32x16 min(const F32x16& a, const F32x16& b) {
  return each<F32x16>([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline F32x16 max(const F32x16& a, const F32x16& b) {
  return each<F32x16>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline F32x16 sqrt(const F32x16& a) {
  return each<F32x16>([&](int i) { return __builtin_sqrtf(a.v[i]); });
}

inline Mask16 lt(const F32x16& a, const F32x16& b) {
  return each<Mask16>([&](int i) { return lane_mask(a.v[i] < b.v[i]); });
}
inline Mask16 le(const F32x16& a, const F32x16& b) {
  return each<Mask16>([&](int i) { return lane_mask(a.v[i] <= b.v[i]); });
}
inline Mask16 eq(const F32x16& a, const F32x16& b) {
  return each<Mask16>([&](int i) { return lane_mask(a.v[i] == b.v[i]); });
}
inline F32x16 select(const Mask16& m, const F32x16& a, const F32x16& b) {
  return each<F32x16>([&](int i) { return m.v[i] != 0 ? a.v[i] : b.v[i]; });
}

inline I32x16 set1_i32(int32_t x) {
  return each<I32x16>([&](int) { return x; });
}
inline I32x16 load_i32(const int32_t* p) {
  I32x16 r;
  std::memcpy(r.v, p, 64);
  return r;
}
inline void store_i32(int32_t* p, const I32x16& a) { std::memcpy(p, a.v, 64); }
inline I32x16 load_i8(const int8_t* p) {
  return each<I32x16>([&](int i) { return p[i]; });
}
inline void store_i8(int8_t* p, const I32x16& a) {
  for (int i = 0; i < 16; i++) p[i] = static_cast<int8_t>(a.v[i]);
}
inline int32_t wrap(uint64_t a) { return static_cast<int32_t>(static_cast<uint32_t>(a)); }
inline uint32_t u32(int32_t a) { return static_cast<uint32_t>(a); }
inline I32x16 operator+(const I32x16& a, const I32x16& b) {
  return each<I32x16>([&](int i) { return wrap(u32(a.v[i]) + u32(b.v[i])); });
}
inline I32x16 operator-(const I32x16& a, const I32x16& b) {
  return each<I32x16>([&](int i) { return wrap(u32(a.v[i]) - u32(b.v[i])); });
}
inline I32x16 operator&(const I32x16& a, const I32x16& b) {
  return each<I32x16>([&](int i) { return a.v[i] & b.v[i]; });
}
inline I32x16 operator|(const I32x16& a, const I32x16& b) {
  return each<I32x16>([&](int i) { return a.v[i] | b.v[i]; });
}
inline I32x16 operator^(const I32x16& a, const I32x16& b) {
  return each<I32x16>([&](int i) { return a.v[i] ^ b.v[i]; });
}
template <int N>
inline I32x16 shl(const I32x16& a) {
  return each<I32x16>([&](int i) { return wrap(u32(a.v[i]) << N); });
}
template <int N>
inline I32x16 shr(const I32x16& a) {
  return each<I32x16>([&](int i) { return wrap(u32(a.v[i]) >> N); });
}
inline I32x16 mul_lo(const I32x16& a, const I32x16& b) {
  return each<I32x16>([&](int i) { return wrap(uint64_t{u32(a.v[i])} * u32(b.v[i])); });
}
inline I32x16 mul_hi(const I32x16& a, const I32x16& b) {
  return each<I32x16>([&](int i) { return wrap(uint64_t{u32(a.v[i])} * u32(b.v[i]) >> 32); });
}
inline Mask16 eq(const I32x16& a, const I32x16& b) {
  return each<Mask16>([&](int i) { return lane_mask(a.v[i] == b.v[i]); });
}
inline Mask16 lt(const I32x16& a, const I32x16& b) {
  return each<Mask16>([&](int i) { return lane_mask(a.v[i] < b.v[i]); });
}
inline I32x16 select(const Mask16& m, const I32x16& a, const I32x16& b) {
  return each<I32x16>([&](int i) { return m.v[i] != 0 ? a.v[i] : b.v[i]; });
}

inline I32x16 as_i32(const F32x16& a) {
  return each<I32x16>([&](int i) { return wrap(as_u32(a.v[i])); });
}
inline F32x16 as_f32(const I32x16& a) {
  return each<F32x16>([&](int i) { return as_float(u32(a.v[i])); });
}
// x + 1.5 * 2^23 has the rounded x in its lowest bits.
inline I32x16 round_to_i32(const F32x16& a) {
  return each<I32x16>([&](int i) { return wrap(as_u32(a.v[i] + 12582912.0f) - 0x4b400000u); });
}
inline F32x16 to_f32(const I32x16& a) {
  return each<F32x16>([&](int i) { return static_cast<float>(a.v[i]); });
}

inline uint32_t quiet_nan_bf16(uint32_t wide) { return (wide & 0x7fffffffu) > 0x7f800000u ? wide | 0x400000u : wide; }
inline float widen_f16(uint16_t half) {
  // Exponent and mantissa, moved to their places in fp32, are exactly the value times 2^-112, denormals included.
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fff) << 13;
  if (magnitude >= 0x0f800000u) return as_float(quiet_nan_bf16(sign | magnitude | 0x7f800000u));
  return as_float(sign | as_u32(as_float(magnitude) * 0x1p112f));
}

inline F32x16 load_bf16(const uint16_t* p) {
  return each<F32x16>([&](int i) { return as_float(static_cast<uint32_t>(p[i]) << 16); });
}
inline F32x16 load_f16(const uint16_t* p) {
  return each<F32x16>([&](int i) { return widen_f16(p[i]); });
}

inline I32x16 round_bf16(const F32x16& a) {
  return each<I32x16>([&](int i) {
    const uint32_t wide = as_u32(a.v[i]);
    const uint32_t rounded = wide + 0x7fffu + (wide >> 16 & 1);
    return wrap((a.v[i] != a.v[i] ? wide | 0x400000u : rounded) >> 16);
  });
}
inline void store_bf16_n(uint16_t* p, const F32x16& a, int n) {
  const I32x16 r = round_bf16(a);
  for (int i = 0; i < n; i++) p[i] = static_cast<uint16_t>(r.v[i]);
}
inline void store_bf16(uint16_t* p, const F32x16& a) { store_bf16_n(p, a, 16); }

inline float reduce_add(F32x16 a) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) a.v[i] = a.v[i] + a.v[i + half];
  }
  return a.v[0];
}
inline float reduce_max(F32x16 a) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) a.v[i] = a.v[i] > a.v[i + half] ? a.v[i] : a.v[i + half];
  }
  return a.v[0];
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
