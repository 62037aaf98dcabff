// Integer dots of tiles by usmmla and usdot, by sdot or, without these, by products of 16 bits; see linear_groups.h.
#pragma once
#include <cstdint>
#include <type_traits>

#include "cpu/kernels/linear_rows.h"
#include "cpu/kernels/quantized_row.h"
#if NDS_NEON_I8MM
#include "cpu/kernels/dots_i8mm.h"
#endif

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Columns of a panel by 16 that are summed side by side: the dots of four rows and 16 columns take 16 registers.
constexpr int kHalvesAtOnce = 1;

// Weights [4 columns][4 k]. usdot and usmmla take them as they lie, unsigned. The other products are of signed bytes:
// int8 is loaded less kInt8Moved.
#if NDS_NEON_I8MM
using Weights = uint8x16_t;
constexpr int kInt8Moved = 0;
inline Weights weights_of(uint8x16_t a) { return a; }
inline Weights load_int8(const uint8_t* p) { return vld1q_u8(p); }
#else
using Weights = int8x16_t;
constexpr int kInt8Moved = 128;
inline Weights weights_of(uint8x16_t a) { return vreinterpretq_s8_u8(a); }
inline Weights load_int8(const uint8_t* p) { return weights_of(veorq_u8(vld1q_u8(p), vdupq_n_u8(0x80))); }
#endif
inline Weights low_nibbles(uint8x16_t a) { return weights_of(vandq_u8(a, vdupq_n_u8(15))); }
inline Weights high_nibbles(uint8x16_t a) { return weights_of(vshrq_n_u8(a, 4)); }

#if NDS_NEON_DOT
// dot + sums of 4 products, w [4][4] and quad kLane of x [4][4], in the register of dot: g++ would copy it, and spill.
template <int kLane>
inline int32x4_t add_dot(int32x4_t dot, Weights w, int8x16_t x) {
#if NDS_NEON_I8MM
  asm("usdot %0.4s, %1.16b, %2.4b[%c3]" : "+w"(dot) : "w"(w), "w"(x), "i"(kLane));
#else
  asm("sdot %0.4s, %1.16b, %2.4b[%c3]" : "+w"(dot) : "w"(w), "w"(x), "i"(kLane));
#endif
  return dot;
}

// 16 k of each row.
template <int R>
struct SingleRows {
  int8x16_t v[R];

  [[gnu::always_inline]] SingleRows(const RowPointers<R>& x, int offset) {
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) v[r] = vld1q_s8(reinterpret_cast<const int8_t*>(x.row(r) + offset));
  }
};
#if NDS_NEON_I8MM
template <int R>
using LoadedRows = std::conditional_t<kPairsRows<R>, RowPairs<R>, SingleRows<R>>;
#else
template <int R>
using LoadedRows = SingleRows<R>;
#endif

// Quad kLane of int8.
template <int kLane, int R, int H>
[[gnu::always_inline]] inline void add_int8_quad(const uint8_t* w, const SingleRows<R>& x, I32x16 (&dots)[R][H]) {
#pragma GCC unroll 8
  for (int j = 0; j < H * 4; j++) {
    const Weights quads = load_int8(w + j * 16);
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) dots[r][j / 4].v[j % 4] = add_dot<kLane>(dots[r][j / 4].v[j % 4], quads, x.v[r]);
  }
}
template <int R, int H>
[[gnu::always_inline]] inline void add_int8(const uint8_t* w, const SingleRows<R>& x, I32x16 (&dots)[R][H]) {
  add_int8_quad<0>(w, x, dots);
  add_int8_quad<1>(w + 128, x, dots);
  add_int8_quad<2>(w + 256, x, dots);
  add_int8_quad<3>(w + 384, x, dots);
}

// Quads kLane, in the low nibbles, and kLane + 1 of int4.
template <int kLane, int R, int H>
[[gnu::always_inline]] inline void add_int4_quads(const uint8_t* w, const SingleRows<R>& x, I32x16 (&dots)[R][H]) {
#pragma GCC unroll 8
  for (int j = 0; j < H * 4; j++) {
    const uint8x16_t pair = vld1q_u8(w + j * 16);
    const Weights low = low_nibbles(pair), high = high_nibbles(pair);
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) {
      int32x4_t& dot = dots[r][j / 4].v[j % 4];
      dot = add_dot<kLane + 1>(add_dot<kLane>(dot, low, x.v[r]), high, x.v[r]);
    }
  }
}
template <int R, int H>
[[gnu::always_inline]] inline void add_int4(const uint8_t* w, const SingleRows<R>& x, I32x16 (&dots)[R][H]) {
  add_int4_quads<0>(w, x, dots);
  add_int4_quads<2>(w + 128, x, dots);
}
#else
inline int8x16_t quad_of(const uint8_t* x) { return vreinterpretq_s8_s32(vdupq_n_s32(read_i32(x))); }

// Products of 4 columns by 4 k, in lanes of 16 bits.
struct Products {
  int16x8_t low, high;
};
inline Products products_of(int8x16_t w, int8x16_t x) {
  return {vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x)};
}
inline Products add_products(Products sum, int8x16_t w, int8x16_t x) {
  return {vmlal_s8(sum.low, vget_low_s8(w), vget_low_s8(x)), vmlal_high_s8(sum.high, w, x)};
}
// A lane of 16 bits holds the sum of two neighbours.
inline int32x4_t add_dot(int32x4_t dot, Products sum) { return vpadalq_s16(dot, vpaddq_s16(sum.low, sum.high)); }
#endif

struct Int8Dots {
  static constexpr int kGroup = kMaxGroup, kTileBytes = 1024, kXTile = kInt8XTile, kZeroBytes = 0;
  using Dot = I32x16;
  // The correction is for q + 128, as weights are stored.
  static Dot begin(int32_t correction) { return set1_i32(kInt8Moved == 128 ? 0 : correction); }
  static I32x16 end(const Dot& dot, int32_t, const uint8_t*) { return dot; }

#if NDS_NEON_DOT
  template <int R, int H, typename Prefetch>
  [[gnu::always_inline]] static void add_tile(const uint8_t* w, const RowPointers<R>& x, Dot (&dots)[R][H],
                                              const Prefetch& prefetch_step) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
      const LoadedRows<R> rows(x, i * 16);
      for (int quad = 0; quad < 4; quad++) prefetch_step(w + i * 512 + quad * 128);
      add_int8(w + i * 512, rows, dots);
    }
  }
#else
  // A lane of 16 bits sums two products: at most 2 * 128 * 127 = 32,512.
  template <int R, int H, typename Prefetch>
  [[gnu::always_inline]] static void add_tile(const uint8_t* w, const RowPointers<R>& x, Dot (&dots)[R][H],
                                              const Prefetch& prefetch_step) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
      prefetch_step(w + i * 128);
      Weights quads[H * 4];
      for (int j = 0; j < H * 4; j++) quads[j] = load_int8(w + i * 128 + j * 16);
#pragma GCC unroll 12
      for (int r = 0; r < R; r++) {
        const int8x16_t q = quad_of(x.row(r) + i * 4);
#pragma GCC unroll 8
        for (int j = 0; j < H * 4; j++) {
          dots[r][j / 4].v[j % 4] = add_dot(dots[r][j / 4].v[j % 4], products_of(quads[j], q));
        }
      }
    }
  }
#endif
};

struct Int4Dots {
  static constexpr int kGroup = kTile, kTileBytes = 512, kXTile = kInt4XTile, kZeroBytes = 0;
  using Dot = I32x16;
  static Dot begin(int32_t correction) { return set1_i32(correction); }
  static I32x16 end(const Dot& dot, int32_t, const uint8_t*) { return dot; }

#if NDS_NEON_DOT
  template <int R, int H, typename Prefetch>
  [[gnu::always_inline]] static void add_tile(const uint8_t* w, const RowPointers<R>& x, Dot (&dots)[R][H],
                                              const Prefetch& prefetch_step) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
      const LoadedRows<R> rows(x, i * 16);
      for (int pair = 0; pair < 2; pair++) prefetch_step(w + i * 256 + pair * 128);
      add_int4(w + i * 256, rows, dots);
    }
  }
#else
  // A lane of 16 bits sums two products of 8 quads: at most 16 * 15 * 127 = 30,480.
  template <int R, int H, typename Prefetch>
  [[gnu::always_inline]] static void add_tile(const uint8_t* w, const RowPointers<R>& x, Dot (&dots)[R][H],
                                              const Prefetch& prefetch_step) {
    for (int p = 0; p < 4; p++) prefetch_step(w + p * 128);
#pragma GCC unroll 8
    for (int j = 0; j < H * 4; j++) {
      Products sums[R];
#pragma GCC unroll 4
      for (int p = 0; p < 4; p++) {
        const uint8x16_t pair = vld1q_u8(w + p * 128 + j * 16);
        const Weights low = low_nibbles(pair), high = high_nibbles(pair);
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
          const int8x16_t q_low = quad_of(x.row(r) + p * 8), q_high = quad_of(x.row(r) + p * 8 + 4);
          sums[r] = add_products(p == 0 ? products_of(low, q_low) : add_products(sums[r], low, q_low), high, q_high);
        }
      }
#pragma GCC unroll 12
      for (int r = 0; r < R; r++) dots[r][j / 4].v[j % 4] = add_dot(dots[r][j / 4].v[j % 4], sums[r]);
    }
  }
#endif
};

// dot + correction * zeros, of 16 columns.
inline I32x16 add_zeros(const I32x16& dot, int32_t correction, uint16x8_t low, uint16x8_t high) {
  const uint32x4_t wide[4] = {vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low), vmovl_u16(vget_low_u16(high)),
                              vmovl_high_u16(high)};
  I32x16 moved = dot;
  for (int i = 0; i < 4; i++) moved.v[i] = vmlaq_n_s32(moved.v[i], vreinterpretq_s32_u32(wide[i]), correction);
  return moved;
}

// zeros [16] of columns; the correction is -(sum of q). Products are of c - kInt8Moved.
struct Int8ZeroDots : Int8Dots {
  static constexpr int kZeroBytes = 2;
  static Dot begin(int32_t correction) { return set1_i32(-kInt8Moved * correction); }
  static I32x16 end(const Dot& dot, int32_t correction, const uint8_t* zeros) {
    const uint16x8_t low = vreinterpretq_u16_u8(vld1q_u8(zeros)), high = vreinterpretq_u16_u8(vld1q_u8(zeros + 16));
    return add_zeros(dot, correction, low, high);
  }
};

struct Int4ZeroDots : Int4Dots {
  static constexpr int kZeroBytes = 1;
  static Dot begin(int32_t) { return Int4Dots::begin(0); }
  static I32x16 end(const Dot& dot, int32_t correction, const uint8_t* zeros) {
    const uint8x16_t bytes = vld1q_u8(zeros);
    return add_zeros(dot, correction, vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
  }
};

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
