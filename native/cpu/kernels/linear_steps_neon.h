// K-steps of linear on NEON, for each pair of stored dtypes. Each output has the additions of linear_steps.h in the
// same order, so that fp32 products have the bits of AVX2.
#pragma once
#include <cstdint>

#include "cpu/kernels/linear_rows.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// One activation x as fp32 in lane 0, by which fmla multiplies without a broadcast.
struct XF32 {
  static constexpr int kBytes = 4;
  static float32x4_t one(const uint8_t* x) { return load_lane(x); }
};
struct XBf16 {
  static constexpr int kBytes = 2;
  static float32x4_t one(const uint8_t* x) { return load_bf16_lane(x); }
};

// sums += w(i) * x(r) for one k; w(i) are columns 4 i … 4 i + 3 of the halves that the sums cover.
template <int R, int H, typename LoadW, typename LoadX>
[[gnu::always_inline]] inline void add_products(Sums<R, H>& sums, LoadW w, LoadX x) {
  float32x4_t rows[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) rows[r] = x(r);
#pragma GCC unroll 8
  for (int i = 0; i < 4 * H; i++) {
    const float32x4_t wi = w(i);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      float32x4_t& sum = sums.v[r][i / 4].v[i % 4];
      sum = vfmaq_laneq_f32(sum, wi, rows[r], 0);
    }
  }
}

// Weights of one k-step as fp32, four columns at a time.
struct WF32 {
  static constexpr int kStepBytes = 128;
  static float32x4_t load_four(const uint8_t* w, int i) { return vld1q_f32(reinterpret_cast<const float*>(w) + i * 4); }
};
struct WF16 {
  static constexpr int kStepBytes = 64;
  static float32x4_t load_four(const uint8_t* w, int i) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(w) + i * 4)));
  }
};

// fp32 products, one k per step.
template <typename W, typename X>
struct SingleSteps {
  static constexpr int kPerStep = 1;
  static constexpr int kStepBytes = W::kStepBytes;
  static constexpr int kXBytes = X::kBytes;
  static constexpr bool kTwoSteps = false;

  template <int R, int H>
  [[gnu::always_inline]] static void step(const uint8_t* w, const RowPointers<R>& x, Sums<R, H>& sums) {
    add_products(sums, [&](int i) { return W::load_four(w, i); }, [&](int r) { return X::one(x.row(r)); });
  }
  template <int R, int H>
  [[gnu::always_inline]] static void odd_step(const uint8_t*, const RowPointers<R>&, Sums<R, H>&) {}
};

// bf16 weights by fp32 products, two k per step: the even one, then the odd one.
template <typename X>
struct PairSteps {
  static constexpr int kPerStep = 2;
  static constexpr int kStepBytes = 128;
  static constexpr int kXBytes = 2 * X::kBytes;
  static constexpr bool kTwoSteps = false;

  static uint32x4_t load_pairs(const uint8_t* w, int i) {
    return vld1q_u32(reinterpret_cast<const uint32_t*>(w) + i * 4);
  }

  template <int R, int H>
  [[gnu::always_inline]] static void step(const uint8_t* w, const RowPointers<R>& x, Sums<R, H>& sums) {
    odd_step(w, x, sums);
    add_products(
        sums, [&](int i) { return vreinterpretq_f32_u32(vandq_u32(load_pairs(w, i), vdupq_n_u32(0xffff0000u))); },
        [&](int r) { return X::one(x.row(r) + X::kBytes); });
  }
  // The even k of a step, alone for the last k of an odd chunk: x[1] belongs to another chunk or lies past the row.
  template <int R, int H>
  [[gnu::always_inline]] static void odd_step(const uint8_t* w, const RowPointers<R>& x, Sums<R, H>& sums) {
    add_products(
        sums, [&](int i) { return vreinterpretq_f32_u32(vshlq_n_u32(load_pairs(w, i), 16)); },
        [&](int r) { return X::one(x.row(r)); });
  }
};

#if NDS_NEON_BF16
// bf16 weights and activations by bfdot, which treats denormals as zeros and rounds to odd. Two rows take two steps at
// a time by bfmmla, which the architecture defines as two bfdots per output, the lower k first: one row has the same
// bits.
struct DotSteps {
  static constexpr int kPerStep = 2;
  static constexpr int kStepBytes = 128;
  static constexpr int kXBytes = 4;
  static constexpr bool kTwoSteps = true;

  static bfloat16x8_t load_pairs(const uint8_t* w, int i) {
    return vld1q_bf16(reinterpret_cast<const bfloat16_t*>(w) + i * 8);
  }
  // x [4] of a row, in the low half.
  static bfloat16x4_t load_x(const uint8_t* x) { return vld1_bf16(reinterpret_cast<const bfloat16_t*>(x)); }

  // tiles[p][i]: rows 2 p and 2 p + 1, each of columns 2 i and 2 i + 1. An odd row, the last, keeps the layout of sums,
  // which are zero before.
  template <int R, int H, typename Prefetch>
  [[gnu::always_inline]] static void take_two_steps(const uint8_t*& w, RowPointers<R>& x, int count, Sums<R, H>& sums,
                                                    Prefetch prefetch_step) {
    constexpr int kPairs = R / 2;
    float32x4_t tiles[kPairs + 1][8 * H];  // one more, for no array is empty
#pragma GCC unroll 2
    for (int p = 0; p < kPairs; p++) {
#pragma GCC unroll 16
      for (int i = 0; i < 8 * H; i++) tiles[p][i] = vdupq_n_f32(0);
    }
    for (; count > 0; count--) {
      prefetch_step(0);
      prefetch_step(kStepBytes);
      bfloat16x8_t rows[kPairs + 1];
#pragma GCC unroll 2
      for (int p = 0; p < kPairs; p++) rows[p] = vcombine_bf16(load_x(x.row(2 * p)), load_x(x.row(2 * p + 1)));
      const bfloat16x4_t last = load_x(x.row(R - 1));
#pragma GCC unroll 8
      for (int i = 0; i < 4 * H; i++) {
        const bfloat16x8_t first = load_pairs(w, i), second = load_pairs(w + kStepBytes, i);
        const uint32x4_t a = vreinterpretq_u32_bf16(first), b = vreinterpretq_u32_bf16(second);
        const bfloat16x8_t low = vreinterpretq_bf16_u32(vzip1q_u32(a, b));
        const bfloat16x8_t high = vreinterpretq_bf16_u32(vzip2q_u32(a, b));
#pragma GCC unroll 2
        for (int p = 0; p < kPairs; p++) {
          tiles[p][2 * i] = vbfmmlaq_f32(tiles[p][2 * i], rows[p], low);
          tiles[p][2 * i + 1] = vbfmmlaq_f32(tiles[p][2 * i + 1], rows[p], high);
        }
        if (R % 2 == 1) {
          float32x4_t& sum = sums.v[R - 1][i / 4].v[i % 4];
          sum = vbfdotq_lane_f32(vbfdotq_lane_f32(sum, first, last, 0), second, last, 1);
        }
      }
      w += 2 * kStepBytes;
      x.advance(2 * kXBytes);
    }
#pragma GCC unroll 2
    for (int p = 0; p < kPairs; p++) {
#pragma GCC unroll 8
      for (int i = 0; i < 4 * H; i++) {
        const float64x2_t a = vreinterpretq_f64_f32(tiles[p][2 * i]), b = vreinterpretq_f64_f32(tiles[p][2 * i + 1]);
        sums.v[2 * p][i / 4].v[i % 4] = vreinterpretq_f32_f64(vzip1q_f64(a, b));
        sums.v[2 * p + 1][i / 4].v[i % 4] = vreinterpretq_f32_f64(vzip2q_f64(a, b));
      }
    }
  }

  template <int R, int H, typename LoadX>
  [[gnu::always_inline]] static void add_dots(const uint8_t* w, Sums<R, H>& sums, LoadX x) {
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      const bfloat16x8_t xr = vreinterpretq_bf16_s32(vdupq_n_s32(x(r)));
#pragma GCC unroll 8
      for (int i = 0; i < 4 * H; i++) {
        float32x4_t& sum = sums.v[r][i / 4].v[i % 4];
        sum = vbfdotq_f32(sum, load_pairs(w, i), xr);
      }
    }
  }
  template <int R, int H>
  [[gnu::always_inline]] static void step(const uint8_t* w, const RowPointers<R>& x, Sums<R, H>& sums) {
    add_dots(w, sums, [&](int r) { return read_i32(x.row(r)); });
  }
  template <int R, int H>
  [[gnu::always_inline]] static void odd_step(const uint8_t* w, const RowPointers<R>& x, Sums<R, H>& sums) {
    add_dots(w, sums, [&](int r) { return int32_t{read_u16(x.row(r))}; });
  }
};
#endif

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
