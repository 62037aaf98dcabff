// K-steps of linear by SSE, AVX2 and AVX-512, for each pair of stored dtypes.
#pragma once
#include <cstdint>

#include "cpu/kernels/bf16_pair.h"
#include "cpu/kernels/linear_rows.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Activations broadcast to all lanes as fp32: one() is x[0]; of a pair x[0], x[1], even() is the first, odd() the
// second.
struct XF32 {
  static constexpr int kBytes = 4;
  static F32x16 one(const uint8_t* x) { return as_f32(set1_i32(read_i32(x))); }
  static F32x16 even(const uint8_t* x) { return one(x); }
  static F32x16 odd(const uint8_t* x) { return one(x + 4); }
};
struct XBf16 {
  static constexpr int kBytes = 2;
  static F32x16 one(const uint8_t* x) { return low_bf16(set1_i32(read_u16(x))); }
  static F32x16 even(const uint8_t* x) { return low_bf16(set1_i32(read_i32(x))); }
  static F32x16 odd(const uint8_t* x) { return high_bf16(set1_i32(read_i32(x))); }
};

// sums[r][half] += w(half) * x(r) for one k.
template <int R, int H, typename LoadW, typename LoadX>
inline void add_products(Sums<R, H>& sums, LoadW w, LoadX x) {
#if NDS_AVX2
  for (int half = 0; half < H; half++) {
    const F32x16 wh = w(half);
    for (int r = 0; r < R; r++) sums.v[r][half] = fma_in_place(wh, x(r), sums.v[r][half]);
  }
#else
  const F32x16 w0 = w(0), w1 = w(1);
  for (int r = 0; r < R; r++) {
    const F32x16 xr = x(r);
    sums.v[r][0] = fma(w0, xr, sums.v[r][0]);
    sums.v[r][1] = fma(w1, xr, sums.v[r][1]);
  }
#endif
}

// Weights of one k-step (32 columns) as fp32, half by half.
struct WF32 {
  static constexpr int kStepBytes = 128;
  static F32x16 load_half(const uint8_t* w, int half) { return load(reinterpret_cast<const float*>(w) + half * 16); }
};
struct WF16 {
  static constexpr int kStepBytes = 64;
  static F32x16 load_half(const uint8_t* w, int half) {
    return load_f16(reinterpret_cast<const uint16_t*>(w) + half * 16);
  }
};
// fp32 products, one k per step.
template <typename W, typename X>
struct SingleSteps {
  static constexpr int kPerStep = 1;
  static constexpr int kStepBytes = W::kStepBytes;
  static constexpr int kXBytes = X::kBytes;

  template <int R, int H>
  static void step(const uint8_t* w, const RowPointers<R>& x, Sums<R, H>& sums) {
    add_products(sums, [&](int half) { return W::load_half(w, half); }, [&](int r) { return X::one(x.row(r)); });
  }
  template <int R, int H>
  static void odd_step(const uint8_t*, const RowPointers<R>&, Sums<R, H>&) {}
};

// bf16 weights by fp32 products, two k per step: the even one, then the odd one.
template <typename X>
struct PairSteps {
  static constexpr int kPerStep = 2;
  static constexpr int kStepBytes = 128;
  static constexpr int kXBytes = 2 * X::kBytes;

  static I32x16 load_pairs(const uint8_t* w, int half) {
    return load_i32(reinterpret_cast<const int32_t*>(w + half * 64));
  }

  template <int R, int H>
  static void step(const uint8_t* w, const RowPointers<R>& x, Sums<R, H>& sums) {
    odd_step(w, x, sums);
    add_products(
        sums, [&](int half) { return high_bf16(load_pairs(w, half)); }, [&](int r) { return X::odd(x.row(r)); });
  }
  // The even k of a step, alone for the last k of an odd chunk: x[1] belongs to another chunk or to the row's padding.
  // XBf16 reads it, too, and drops it.
  template <int R, int H>
  static void odd_step(const uint8_t* w, const RowPointers<R>& x, Sums<R, H>& sums) {
    add_products(
        sums, [&](int half) { return low_bf16(load_pairs(w, half)); }, [&](int r) { return X::even(x.row(r)); });
  }
};

#if NDS_AVX512_BF16
// bf16 weights and activations by vdpbf16ps, which treats denormals as zeros.
struct DotSteps {
  static constexpr int kPerStep = 2;
  static constexpr int kStepBytes = 128;
  static constexpr int kXBytes = 4;

  template <int R, int H, typename LoadX>
  static void add_dots(const uint8_t* w, Sums<R, H>& sums, LoadX x) {
    const __m512bh w0 = reinterpret_cast<__m512bh>(_mm512_load_si512(w));
    const __m512bh w1 = reinterpret_cast<__m512bh>(_mm512_load_si512(w + 64));
    for (int r = 0; r < R; r++) {
      const __m512bh xr = reinterpret_cast<__m512bh>(_mm512_set1_epi32(x(r)));
      sums.v[r][0].v = _mm512_dpbf16_ps(sums.v[r][0].v, w0, xr);
      sums.v[r][1].v = _mm512_dpbf16_ps(sums.v[r][1].v, w1, xr);
    }
  }
  template <int R, int H>
  static void step(const uint8_t* w, const RowPointers<R>& x, Sums<R, H>& sums) {
    add_dots(w, sums, [&](int r) { return read_i32(x.row(r)); });
  }
  template <int R, int H>
  static void odd_step(const uint8_t* w, const RowPointers<R>& x, Sums<R, H>& sums) {
    add_dots(w, sums, [&](int r) { return int32_t{read_u16(x.row(r))}; });
  }
};
#endif

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
