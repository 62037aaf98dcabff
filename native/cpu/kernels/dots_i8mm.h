// Integer dots of four rows by usmmla: 8 k of two columns and two rows at once, twice the products of usdot. The
// columns have to be zipped for it; for two rows that would take what usmmla saves. See dots_neon.h.
#pragma once
#include <cstdint>

#include "cpu/kernels/linear_rows.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

template <int R>
constexpr bool kPairsRows = R == 4;

// While tiles are added, registers j of rows 2 p and 2 p + 1 hold what usmmla makes, [2 columns][2 rows]: columns 4 j
// and 4 j + 1 of both rows, then columns 4 j + 2 and 4 j + 3. `change` takes such two registers.
template <int R, int H, typename Change>
[[gnu::always_inline]] inline void change_pairs(I32x16 (&dots)[R][H], const Change& change) {
  if constexpr (kPairsRows<R>) {
#pragma GCC unroll 2
    for (int p = 0; p < R / 2; p++) {
#pragma GCC unroll 8
      for (int j = 0; j < H * 4; j++) change(dots[2 * p][j / 4].v[j % 4], dots[2 * p + 1][j / 4].v[j % 4]);
    }
  }
}
template <int R, int H>
[[gnu::always_inline]] inline void join_rows(I32x16 (&dots)[R][H]) {
  change_pairs(dots, [](int32x4_t& a, int32x4_t& b) {
    const int32x4_t first = vzip1q_s32(a, b);
    b = vzip2q_s32(a, b);
    a = first;
  });
}
template <int R, int H>
[[gnu::always_inline]] inline void split_rows(I32x16 (&dots)[R][H]) {
  change_pairs(dots, [](int32x4_t& a, int32x4_t& b) {
    const int32x4_t first = vuzp1q_s32(a, b);
    b = vuzp2q_s32(a, b);
    a = first;
  });
}

// 16 k of pairs of rows: quads 0 and 2 of one row, then of the other; and quads 1 and 3.
template <int R>
struct RowPairs {
  int8x16_t even[R / 2], odd[R / 2];

  [[gnu::always_inline]] RowPairs(const RowPointers<R>& x, int offset) {
#pragma GCC unroll 2
    for (int p = 0; p < R / 2; p++) {
      const int32x4_t a = load(x.row(2 * p) + offset), b = load(x.row(2 * p + 1) + offset);
      even[p] = vreinterpretq_s8_s32(vuzp1q_s32(a, b));
      odd[p] = vreinterpretq_s8_s32(vuzp2q_s32(a, b));
    }
  }

 private:
  static int32x4_t load(const uint8_t* x) { return vreinterpretq_s32_u8(vld1q_u8(x)); }
};

// Two quads of 4 columns, [2 columns][2 quads][4]: columns 0 and 1, then columns 2 and 3.
struct ColumnPairs {
  uint8x16_t low, high;

  ColumnPairs(uint8x16_t first_quads, uint8x16_t second_quads) {
    const uint32x4_t a = vreinterpretq_u32_u8(first_quads), b = vreinterpretq_u32_u8(second_quads);
    low = vreinterpretq_u8_u32(vzip1q_u32(a, b));
    high = vreinterpretq_u8_u32(vzip2q_u32(a, b));
  }
};

// Adds the products of columns 4 j … 4 j + 3 to joined dots, in the registers of the dots.
template <int R, int H>
[[gnu::always_inline]] inline void add_columns(I32x16 (&dots)[R][H], int j, uint8x16_t low, uint8x16_t high,
                                               const int8x16_t (&x)[R / 2]) {
#pragma GCC unroll 2
  for (int p = 0; p < R / 2; p++) {
    asm("usmmla %0.4s, %1.16b, %2.16b" : "+w"(dots[2 * p][j / 4].v[j % 4]) : "w"(low), "w"(x[p]));
    asm("usmmla %0.4s, %1.16b, %2.16b" : "+w"(dots[2 * p + 1][j / 4].v[j % 4]) : "w"(high), "w"(x[p]));
  }
}

// 16 k of int8: four quads of 128 bytes.
template <int R, int H>
[[gnu::always_inline]] inline void add_int8(const uint8_t* w, const RowPairs<R>& x, I32x16 (&dots)[R][H]) {
#pragma GCC unroll 2
  for (int odd = 0; odd < 2; odd++) {
#pragma GCC unroll 8
    for (int j = 0; j < H * 4; j++) {
      const uint8_t* const quads = w + odd * 128 + j * 16;
      const ColumnPairs columns(vld1q_u8(quads), vld1q_u8(quads + 256));
      add_columns(dots, j, columns.low, columns.high, odd ? x.odd : x.even);
    }
  }
}

// 16 k of int4: 128 bytes of quad 0, in the low nibbles, and quad 1; then 128 of quads 2 and 3.
template <int R, int H>
[[gnu::always_inline]] inline void add_int4(const uint8_t* w, const RowPairs<R>& x, I32x16 (&dots)[R][H]) {
  const uint8x16_t mask = vdupq_n_u8(15);
#pragma GCC unroll 8
  for (int j = 0; j < H * 4; j++) {
    const ColumnPairs columns(vld1q_u8(w + j * 16), vld1q_u8(w + 128 + j * 16));
    add_columns(dots, j, vandq_u8(columns.low, mask), vandq_u8(columns.high, mask), x.even);
    add_columns(dots, j, vshrq_n_u8(columns.low, 4), vshrq_n_u8(columns.high, 4), x.odd);
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
