// simd.h on the vector instructions that every arm64 processor has: four registers of four lanes.
#pragma once
#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace nds::cpu::NDS_ISA_NAMESPACE {

struct F32x16 {
  float32x4_t v[4];
};
struct I32x16 {
  int32x4_t v[4];
};
struct Mask16 {
  uint32x4_t v[4];  // all ones or all zeros in a lane
};

// A vector of type R whose register i is f(i).
template <typename R, typename F>
inline R each(F f) {
  return {{f(0), f(1), f(2), f(3)}};
}

inline uint32x4_t unsigned4(int32x4_t a) { return vreinterpretq_u32_s32(a); }
inline int32x4_t signed4(uint32x4_t a) { return vreinterpretq_s32_u32(a); }

inline Mask16 first_n(int n) {
  const int32x4_t lane = {0, 1, 2, 3};
  return each<Mask16>([&](int i) { return vcltq_s32(lane, vdupq_n_s32(n - i * 4)); });
}
inline uint32_t bits(Mask16 m) {
  const uint32x4_t place = {1, 2, 4, 8};
  uint32_t r = 0;
  for (int i = 0; i < 4; i++) r |= vaddvq_u32(vandq_u32(m.v[i], place)) << (i * 4);
  return r;
}
inline bool any(Mask16 m) { return vmaxvq_u32(vorrq_u32(vorrq_u32(m.v[0], m.v[1]), vorrq_u32(m.v[2], m.v[3]))) != 0; }
inline Mask16 operator&(Mask16 a, Mask16 b) {
  return each<Mask16>([&](int i) { return vandq_u32(a.v[i], b.v[i]); });
}
inline Mask16 operator|(Mask16 a, Mask16 b) {
  return each<Mask16>([&](int i) { return vorrq_u32(a.v[i], b.v[i]); });
}

inline F32x16 set1(float x) {
  return each<F32x16>([&](int) { return vdupq_n_f32(x); });
}
inline F32x16 zero() { return set1(0); }
inline F32x16 load(const float* p) {
  return each<F32x16>([&](int i) { return vld1q_f32(p + i * 4); });
}
inline F32x16 load_n(const float* p, int n) {
  if (n == 16) return load(p);
  float lanes[16] = {};
  std::memcpy(lanes, p, static_cast<size_t>(n) * 4);
  return load(lanes);
}
inline void store(float* p, F32x16 a) {
  for (int i = 0; i < 4; i++) vst1q_f32(p + i * 4, a.v[i]);
}
inline void store_n(float* p, F32x16 a, int n) {
  if (n == 16) return store(p, a);
  float lanes[16];
  store(lanes, a);
  std::memcpy(p, lanes, static_cast<size_t>(n) * 4);
}

inline F32x16 operator+(F32x16 a, F32x16 b) {
  return each<F32x16>([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
inline F32x16 operator-(F32x16 a, F32x16 b) {
  return each<F32x16>([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
inline F32x16 operator*(F32x16 a, F32x16 b) {
  return each<F32x16>([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
inline F32x16 operator/(F32x16 a, F32x16 b) {
  return each<F32x16>([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return each<F32x16>([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
// A float, or a bf16 as fp32, in lane 0. The compiler would broadcast it, which takes a vector unit on many processors.
inline float32x4_t load_lane(const uint8_t* p) {
  float32x4_t value;
  asm("ldr %s0, %1" : "=w"(value) : "m"(*reinterpret_cast<const uint32_t*>(p)));
  return value;
}
inline float32x4_t load_bf16_lane(const uint8_t* p) {
  uint32x4_t value;
  asm("ldr %h0, %1" : "=w"(value) : "m"(*reinterpret_cast<const uint16_t*>(p)));
  return vreinterpretq_f32_u32(vshlq_n_u32(value, 16));
}
// Two bf16 as they lie in memory, in lanes 0 and 1; as fp32, in lanes 0 and 1 of four.
inline float32x4_t load_bf16_pair(const uint8_t* p) {
  uint16x4_t value;
  asm("ldr %s0, %1" : "=w"(value) : "m"(*reinterpret_cast<const uint32_t*>(p)));
  return vreinterpretq_f32_u32(vshll_n_u16(value, 16));
}
// fma with lane kLane of b in every lane.
template <int kLane>
inline F32x16 fma_lane(F32x16 a, float32x4_t b, F32x16 c) {
  return each<F32x16>([&](int i) { return vfmaq_laneq_f32(c.v[i], a.v[i], b, kLane); });
}
inline F32x16 sqrt(F32x16 a) {
  return each<F32x16>([&](int i) { return vsqrtq_f32(a.v[i]); });
}

inline Mask16 lt(F32x16 a, F32x16 b) {
  return each<Mask16>([&](int i) { return vcltq_f32(a.v[i], b.v[i]); });
}
inline Mask16 le(F32x16 a, F32x16 b) {
  return each<Mask16>([&](int i) { return vcleq_f32(a.v[i], b.v[i]); });
}
inline Mask16 eq(F32x16 a, F32x16 b) {
  return each<Mask16>([&](int i) { return vceqq_f32(a.v[i], b.v[i]); });
}
inline F32x16 select(Mask16 m, F32x16 a, F32x16 b) {
  return each<F32x16>([&](int i) { return vbslq_f32(m.v[i], a.v[i], b.v[i]); });
}
// fmin and fmax order -0 before 0 and spread NaNs; these do as simd.h says.
inline F32x16 min(F32x16 a, F32x16 b) { return select(lt(a, b), a, b); }
inline F32x16 max(F32x16 a, F32x16 b) { return select(lt(b, a), a, b); }

inline I32x16 as_i32(F32x16 a) {
  return each<I32x16>([&](int i) { return vreinterpretq_s32_f32(a.v[i]); });
}
inline F32x16 as_f32(I32x16 a) {
  return each<F32x16>([&](int i) { return vreinterpretq_f32_s32(a.v[i]); });
}

inline I32x16 set1_i32(int32_t x) {
  return each<I32x16>([&](int) { return vdupq_n_s32(x); });
}
inline I32x16 load_i32(const int32_t* p) {
  return each<I32x16>([&](int i) { return vld1q_s32(p + i * 4); });
}
inline void store_i32(int32_t* p, I32x16 a) {
  for (int i = 0; i < 4; i++) vst1q_s32(p + i * 4, a.v[i]);
}
inline I32x16 load_i8(const int8_t* p) {
  const int8x16_t bytes = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
  return {{vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)}};
}
inline void store_i8(int8_t* p, I32x16 a) {
  const int16x8_t low = vmovn_high_s32(vmovn_s32(a.v[0]), a.v[1]), high = vmovn_high_s32(vmovn_s32(a.v[2]), a.v[3]);
  vst1q_s8(p, vmovn_high_s16(vmovn_s16(low), high));
}
inline I32x16 operator+(I32x16 a, I32x16 b) {
  return each<I32x16>([&](int i) { return vaddq_s32(a.v[i], b.v[i]); });
}
inline I32x16 operator-(I32x16 a, I32x16 b) {
  return each<I32x16>([&](int i) { return vsubq_s32(a.v[i], b.v[i]); });
}
inline I32x16 operator&(I32x16 a, I32x16 b) {
  return each<I32x16>([&](int i) { return vandq_s32(a.v[i], b.v[i]); });
}
inline I32x16 operator|(I32x16 a, I32x16 b) {
  return each<I32x16>([&](int i) { return vorrq_s32(a.v[i], b.v[i]); });
}
inline I32x16 operator^(I32x16 a, I32x16 b) {
  return each<I32x16>([&](int i) { return veorq_s32(a.v[i], b.v[i]); });
}
template <int N>
inline I32x16 shl(I32x16 a) {
  return each<I32x16>([&](int i) { return vshlq_n_s32(a.v[i], N); });
}
template <int N>
inline I32x16 shr(I32x16 a) {
  return each<I32x16>([&](int i) { return signed4(vshrq_n_u32(unsigned4(a.v[i]), N)); });
}
inline I32x16 mul_lo(I32x16 a, I32x16 b) {
  return each<I32x16>([&](int i) { return vmulq_s32(a.v[i], b.v[i]); });
}
inline I32x16 mul_hi(I32x16 a, I32x16 b) {
  return each<I32x16>([&](int i) {
    const uint32x4_t x = unsigned4(a.v[i]), y = unsigned4(b.v[i]);
    const uint64x2_t low = vmull_u32(vget_low_u32(x), vget_low_u32(y)), high = vmull_high_u32(x, y);
    return signed4(vuzp2q_u32(vreinterpretq_u32_u64(low), vreinterpretq_u32_u64(high)));
  });
}
inline Mask16 eq(I32x16 a, I32x16 b) {
  return each<Mask16>([&](int i) { return vceqq_s32(a.v[i], b.v[i]); });
}
inline Mask16 lt(I32x16 a, I32x16 b) {
  return each<Mask16>([&](int i) { return vcltq_s32(a.v[i], b.v[i]); });
}
inline I32x16 select(Mask16 m, I32x16 a, I32x16 b) {
  return each<I32x16>([&](int i) { return vbslq_s32(m.v[i], a.v[i], b.v[i]); });
}

inline I32x16 round_to_i32(F32x16 a) {
  return each<I32x16>([&](int i) { return vcvtnq_s32_f32(a.v[i]); });
}
inline F32x16 to_f32(I32x16 a) {
  return each<F32x16>([&](int i) { return vcvtq_f32_s32(a.v[i]); });
}

inline F32x16 load_bf16(const uint16_t* p) {
  return each<F32x16>([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + i * 4), 16)); });
}
inline F32x16 load_f16(const uint16_t* p) {
  return each<F32x16>([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + i * 4))); });
}

// The bf16 bits of every lane, in the low half of a 32-bit lane.
inline I32x16 round_bf16(F32x16 a) {
  const I32x16 wide = as_i32(a);
  const I32x16 rounded = wide + set1_i32(0x7fff) + (shr<16>(wide) & set1_i32(1));
  return shr<16>(select(eq(a, a), rounded, wide | set1_i32(0x400000)));
}
inline void store_bf16(uint16_t* p, F32x16 a) {
  const I32x16 r = round_bf16(a);
  for (int i = 0; i < 4; i++) vst1_u16(p + i * 4, vmovn_u32(unsigned4(r.v[i])));
}
inline void store_bf16_n(uint16_t* p, F32x16 a, int n) {
  uint16_t lanes[16];
  store_bf16(lanes, a);
  std::memcpy(p, lanes, static_cast<size_t>(n) * 2);
}

inline float reduce_add(F32x16 a) {
  const float32x4_t s4 = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
  const float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
  return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}
inline float reduce_max(F32x16 a) {
  const auto larger = [](float32x4_t x, float32x4_t y) { return vbslq_f32(vcltq_f32(y, x), x, y); };
  const float32x4_t m4 = larger(larger(a.v[0], a.v[2]), larger(a.v[1], a.v[3]));
  const float32x4_t m2 = larger(m4, vextq_f32(m4, m4, 2));
  return vgetq_lane_f32(larger(m2, vextq_f32(m2, m2, 1)), 0);
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
