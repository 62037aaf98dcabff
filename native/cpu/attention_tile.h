// The two products of attention over one run of 32 keys: scores of R query rows, and R rows of output taking in 32 values.
// What is summed for a row, and in which order, does not depend on R.
#pragma once
#include <cstdint>
#include <cstring>

#include "core/kv_view.h"
#include "cpu/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

inline I32x16 broadcast_i32(const uint8_t* p) {
  int32_t value;
  std::memcpy(&value, p, 4);
  return set1_i32(value);
}
inline F32x16 low_half(I32x16 pair) { return as_f32(shl<16>(pair)); }
inline F32x16 high_half(I32x16 pair) { return as_f32(pair & set1_i32(static_cast<int32_t>(0xffff0000u))); }

// fp32 cache: one dimension (or token) a step.
struct F32Kv {
  static constexpr int kPerStep = 1;
  using Panel = F32x16;
  static Panel load_panel(const uint8_t* p) { return load(reinterpret_cast<const float*>(p)); }
  static F32x16 multiply_add(Panel panel, const uint8_t* x, F32x16 sum) { return fma(panel, as_f32(broadcast_i32(x)), sum); }
};

// bf16 cache by fp32 products: two dimensions (or tokens) a step, the even one first.
struct PairKv {
  static constexpr int kPerStep = 2;
  using Panel = I32x16;
  static Panel load_panel(const uint8_t* p) { return load_i32(reinterpret_cast<const int32_t*>(p)); }
  static F32x16 multiply_add(Panel panel, const uint8_t* x, F32x16 sum) {
    const I32x16 pair = broadcast_i32(x);
    return fma(high_half(panel), high_half(pair), fma(low_half(panel), low_half(pair), sum));
  }
};

#if NDS_ISA == 3
// bf16 cache in hardware.
struct DotKv {
  static constexpr int kPerStep = 2;
  using Panel = __m512bh;
  static Panel load_panel(const uint8_t* p) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p)); }
  static F32x16 multiply_add(Panel panel, const uint8_t* x, F32x16 sum) {
    return {_mm512_dpbf16_ps(sum.v, panel, reinterpret_cast<__m512bh>(broadcast_i32(x).v))};
  }
};
#endif

// scores[r] [32] = K of a run times query row r. Two chains, of even and of odd steps, hide latency and join at the end.
template <typename Kv, int R>
void score_rows(const uint8_t* k_panel, const uint8_t* const* q, int head_dim, float* const* scores) {
  F32x16 sums[R][2][2];
  for (int r = 0; r < R; r++) {
    for (int half = 0; half < 2; half++) sums[r][half][0] = sums[r][half][1] = zero();
  }
  const int num_steps = head_dim / Kv::kPerStep;
  int step = 0;
  for (; step + 1 < num_steps; step += 2) {
#pragma GCC unroll 2
    for (int chain = 0; chain < 2; chain++) {
      const uint8_t* k = k_panel + (step + chain) * 128;
      const typename Kv::Panel low = Kv::load_panel(k), high = Kv::load_panel(k + 64);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        sums[r][0][chain] = Kv::multiply_add(low, q[r] + (step + chain) * 4, sums[r][0][chain]);
        sums[r][1][chain] = Kv::multiply_add(high, q[r] + (step + chain) * 4, sums[r][1][chain]);
      }
    }
  }
  if (step < num_steps) {
    const typename Kv::Panel low = Kv::load_panel(k_panel + step * 128), high = Kv::load_panel(k_panel + step * 128 + 64);
    for (int r = 0; r < R; r++) {
      sums[r][0][0] = Kv::multiply_add(low, q[r] + step * 4, sums[r][0][0]);
      sums[r][1][0] = Kv::multiply_add(high, q[r] + step * 4, sums[r][1][0]);
    }
  }
  for (int r = 0; r < R; r++) {
    store(scores[r], sums[r][0][0] + sums[r][0][1]);
    store(scores[r] + 16, sums[r][1][0] + sums[r][1][1]);
  }
}

// out[r][d … d + 16 V) += p[r] [32] times V of a run, token after token. Rows whose bit in `active` is off stay as they are.
template <typename Kv, int R, int V>
void add_values(const uint8_t* v_panel, int64_t row_bytes, const uint8_t* const* p, float* const* out, int d, uint32_t active) {
  F32x16 sums[R][V];
  for (int r = 0; r < R; r++) {
    for (int v = 0; v < V; v++) sums[r][v] = load(out[r] + d + v * 16);
  }
  for (int step = 0; step < kRun / Kv::kPerStep; step++) {
    const uint8_t* row = v_panel + step * row_bytes + d * 4;
    typename Kv::Panel values[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) values[v] = Kv::load_panel(row + v * 64);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) sums[r][v] = Kv::multiply_add(values[v], p[r] + step * 4, sums[r][v]);
    }
  }
  for (int r = 0; r < R; r++) {
    if ((active >> r & 1) == 0) continue;
    for (int v = 0; v < V; v++) store(out[r] + d + v * 16, sums[r][v]);
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
