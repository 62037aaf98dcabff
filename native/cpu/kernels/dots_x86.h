// Integer dots of tiles by VNNI or, without it, by products of 16 bits; see linear_groups.h.
#pragma once
#include <cstdint>

#include "cpu/kernels/linear_rows.h"
#include "cpu/kernels/quantized_row.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Columns of a panel by 16 that are summed side by side: with AVX2, registers are too few for both halves.
constexpr int kHalvesAtOnce = NDS_AVX512 ? 2 : 1;

inline I32x16 load_bytes(const uint8_t* p) { return load_i32(reinterpret_cast<const int32_t*>(p)); }
inline I32x16 quad_of(const uint8_t* x) { return set1_i32(read_i32(x)); }

// _16: on lanes of 16 bits.
#if NDS_AVX512
inline I32x16 high_bytes_16(I32x16 a) { return {_mm512_srli_epi16(a.v, 8)}; }
inline I32x16 high_nibbles(I32x16 a, I32x16 mask) { return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), mask.v)}; }
inline I32x16 pair_sums_16(I32x16 a, I32x16 b) { return {_mm512_madd_epi16(a.v, b.v)}; }
inline I32x16 pair_sums_8(I32x16 a, I32x16 b) { return {_mm512_maddubs_epi16(a.v, b.v)}; }
inline I32x16 load_u16(const uint8_t* p) {
  return {_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
#else
inline I32x16 high_bytes_16(I32x16 a) { return {_mm256_srli_epi16(a.lo, 8), _mm256_srli_epi16(a.hi, 8)}; }
inline I32x16 high_nibbles(I32x16 a, I32x16 mask) {
  return {_mm256_and_si256(_mm256_srli_epi16(a.lo, 4), mask.lo), _mm256_and_si256(_mm256_srli_epi16(a.hi, 4), mask.hi)};
}
inline I32x16 pair_sums_16(I32x16 a, I32x16 b) {
  return {_mm256_madd_epi16(a.lo, b.lo), _mm256_madd_epi16(a.hi, b.hi)};
}
inline I32x16 pair_sums_8(I32x16 a, I32x16 b) {
  return {_mm256_maddubs_epi16(a.lo, b.lo), _mm256_maddubs_epi16(a.hi, b.hi)};
}
inline I32x16 load_u16(const uint8_t* p) {
  const __m128i* const halves = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtepu16_epi32(_mm_loadu_si128(halves)), _mm256_cvtepu16_epi32(_mm_loadu_si128(halves + 1))};
}
#endif

// dot + products, in the registers of dot: the compiler would move all products before all additions, and spill them.
inline I32x16 add_in_place(I32x16 dot, I32x16 products) {
#if NDS_AVX512
  asm("vpaddd %1, %0, %0" : "+v"(dot.v) : "v"(products.v));
#else
  asm("vpaddd %1, %0, %0" : "+x"(dot.lo) : "x"(products.lo));
  asm("vpaddd %1, %0, %0" : "+x"(dot.hi) : "x"(products.hi));
#endif
  return dot;
}
inline I32x16 add_in_place_16(I32x16 dot, I32x16 products) {
#if NDS_AVX512
  asm("vpaddw %1, %0, %0" : "+v"(dot.v) : "v"(products.v));
#else
  asm("vpaddw %1, %0, %0" : "+x"(dot.lo) : "x"(products.lo));
  asm("vpaddw %1, %0, %0" : "+x"(dot.hi) : "x"(products.hi));
#endif
  return dot;
}

#if NDS_VNNI
// dot + sum of 4 products of bytes, w unsigned and x signed, in the registers of dot: the compiler would copy it.
inline I32x16 add_dot(I32x16 dot, I32x16 w, I32x16 x) {
#if NDS_AVX512
  asm("vpdpbusd %2, %1, %0" : "+v"(dot.v) : "v"(w.v), "v"(x.v));
#else
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(dot.lo) : "x"(w.lo), "x"(x.lo));
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(dot.hi) : "x"(w.hi), "x"(x.lo));
#endif
  return dot;
}
#endif

struct Int8Dots {
  static constexpr int kGroup = kMaxGroup, kTileBytes = 1024, kXTile = kInt8XTile, kZeroBytes = 0;
  using Dot = I32x16;
  static Dot begin(int32_t correction) { return set1_i32(correction); }
  static I32x16 end(Dot dot, int32_t, const uint8_t*) { return dot; }

  template <int R, int H, typename Prefetch>
  [[gnu::always_inline]] static void add_tile(const uint8_t* w, const RowPointers<R>& x, Dot (&dots)[R][H],
                                              const Prefetch& prefetch_step) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
      prefetch_step(w + i * 128);
      I32x16 quads[H];
      for (int h = 0; h < H; h++) quads[h] = load_bytes(w + i * 128 + h * 64);
#if NDS_VNNI
#pragma GCC unroll 12
      for (int r = 0; r < R; r++) {
        const I32x16 q = quad_of(x.row(r) + i * 4);
        for (int h = 0; h < H; h++) dots[r][h] = add_dot(dots[r][h], quads[h], q);
      }
#else
      I32x16 even[H], odd[H];
      for (int h = 0; h < H; h++) {
        even[h] = quads[h] & set1_i32(0x00ff00ff);
        odd[h] = high_bytes_16(quads[h]);
      }
#pragma GCC unroll 12
      for (int r = 0; r < R; r++) {
        const I32x16 q_even = quad_of(x.row(r) + i * 8), q_odd = quad_of(x.row(r) + i * 8 + 4);
        for (int h = 0; h < H; h++) {
          dots[r][h] = add_in_place(dots[r][h], pair_sums_16(even[h], q_even));
          dots[r][h] = add_in_place(dots[r][h], pair_sums_16(odd[h], q_odd));
        }
      }
#endif
    }
  }
};

struct Int4Dots {
  static constexpr int kGroup = kTile, kTileBytes = 512, kXTile = kInt4XTile, kZeroBytes = 0;
  using Dot = I32x16;
  static Dot begin(int32_t correction) { return set1_i32(correction); }
  static I32x16 end(Dot dot, int32_t, const uint8_t*) { return dot; }

#if NDS_VNNI
  static Dot add(Dot dot, I32x16 w, I32x16 x) { return add_dot(dot, w, x); }

  template <int R, int H, typename Prefetch>
  [[gnu::always_inline]] static void add_tile(const uint8_t* w, const RowPointers<R>& x, Dot (&dots)[R][H],
                                              const Prefetch& prefetch_step) {
    add_quads(w, x, dots, prefetch_step);
  }
#else
  // A lane of 16 bits sums two products of 8 quads: at most 16 * 15 * 127 = 30,480.
  static Dot add(Dot dot, I32x16 w, I32x16 x) { return add_in_place_16(dot, pair_sums_8(w, x)); }

  template <int R, int H, typename Prefetch>
  [[gnu::always_inline]] static void add_tile(const uint8_t* w, const RowPointers<R>& x, Dot (&dots)[R][H],
                                              const Prefetch& prefetch_step) {
    I32x16 of_tile[R][H];
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) {
      for (int h = 0; h < H; h++) of_tile[r][h] = set1_i32(0);
    }
    add_quads(w, x, of_tile, prefetch_step);
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) {
      for (int h = 0; h < H; h++)
        dots[r][h] = add_in_place(dots[r][h], pair_sums_16(of_tile[r][h], set1_i32(0x00010001)));
    }
  }
#endif

 private:
  template <int R, int H, typename Prefetch>
  [[gnu::always_inline]] static void add_quads(const uint8_t* w, const RowPointers<R>& x, I32x16 (&dots)[R][H],
                                               const Prefetch& prefetch_step) {
    const I32x16 mask = set1_i32(0x0f0f0f0f);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) {
      prefetch_step(w + p * 128);
      I32x16 low[H], high[H];
      for (int h = 0; h < H; h++) {
        const I32x16 pair = load_bytes(w + p * 128 + h * 64);
        low[h] = pair & mask;
        high[h] = high_nibbles(pair, mask);
      }
#pragma GCC unroll 12
      for (int r = 0; r < R; r++) {
        const I32x16 q_low = quad_of(x.row(r) + p * 8), q_high = quad_of(x.row(r) + p * 8 + 4);
        for (int h = 0; h < H; h++) dots[r][h] = add(add(dots[r][h], low[h], q_low), high[h], q_high);
      }
    }
  }
};

// zeros [16] of columns; the correction is -(sum of q), which 16 bits hold: at most 128 * 127 = 16,256.
struct Int8ZeroDots : Int8Dots {
  static constexpr int kZeroBytes = 2;
  static Dot begin(int32_t) { return set1_i32(0); }
  static I32x16 end(Dot dot, int32_t correction, const uint8_t* zeros) {
    return dot + pair_sums_16(load_u16(zeros), set1_i32(correction));
  }
};

struct Int4ZeroDots : Int4Dots {
  static constexpr int kZeroBytes = 1;
  static Dot begin(int32_t) { return set1_i32(0); }
  static I32x16 end(Dot dot, int32_t correction, const uint8_t* zeros) {
    return dot + pair_sums_16(load_i8(reinterpret_cast<const int8_t*>(zeros)), set1_i32(correction));
  }
};

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
