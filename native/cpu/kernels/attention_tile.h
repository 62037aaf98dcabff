// The two products of attention over one run of 32 keys, for R query rows: scores = Q K^T, and output += P V. The terms
// of a row's sums and their order do not depend on R.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cpu/kernels/bf16_pair.h"
#include "cpu/kernels/simd.h"
#include "cpu/kv_view.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Query rows and halves of a run (16 keys) whose score sums, in two chains, fit in registers: 24 of the 32 zmm of
// AVX-512, 12 of the 16 ymm of AVX2, 16 of the 32 registers of NEON (clang++ spills some of 24).
constexpr int kMaxTileRows = NDS_AVX512 ? 6 : NDS_AVX2 ? 3 : NDS_NEON ? 2 : 1;
constexpr int kTileHalves = NDS_AVX2 || NDS_NEON ? 1 : 2;

inline I32x16 broadcast_i32(const uint8_t* p) {
  int32_t value;
  std::memcpy(&value, p, 4);
  return set1_i32(value);
}

// How a cache is multiplied: a step takes kPerStep dimensions (K) or tokens (V) of 16 keys or columns, in kParts
// products one after the other.

// fp32 cache.
struct F32Kv {
  static constexpr int kPerStep = 1, kParts = 1;
  static constexpr int kRowBytes = 4;  // of a query row or its probabilities that a step reads
  using Expanded = F32Kv;              // what reads the panels that a narrower cache is expanded to
  using Panel = F32x16;
  static Panel load_panel(const uint8_t* p, int) { return load(reinterpret_cast<const float*>(p)); }
  static F32x16 multiply_add(const Panel& panel, const uint8_t* x, int, const F32x16& sum) {
#if NDS_NEON
    return fma_lane<0>(panel, load_lane(x), sum);
#else
    return fma_in_place(panel, as_f32(broadcast_i32(x)), sum);
#endif
  }
};

// bf16 cache and rows by fp32 products, the even one of two first.
struct PairKv {
  static constexpr int kPerStep = 2, kParts = 2;
  static constexpr int kRowBytes = 4;
  using Expanded = PairKv;
  using Panel = F32x16;
  static Panel load_panel(const uint8_t* p, int part) {
    const I32x16 pair = load_i32(reinterpret_cast<const int32_t*>(p));
    return part == 0 ? low_bf16(pair) : high_bf16(pair);
  }
  static F32x16 multiply_add(const Panel& panel, const uint8_t* x, int part, const F32x16& sum) {
#if NDS_NEON
    const float32x4_t pair = load_bf16_pair(x);
    return part == 0 ? fma_lane<0>(panel, pair, sum) : fma_lane<1>(panel, pair, sum);
#else
    const I32x16 pair = broadcast_i32(x);
    return fma_in_place(panel, part == 0 ? low_bf16(pair) : high_bf16(pair), sum);
#endif
  }
};

// bf16 cache beside fp32 rows. Terms and their order are those of F32Kv, so that the bits are those of an fp32 cache of
// the same values.
struct MixedKv {
  static constexpr int kPerStep = 2, kParts = 2;
  static constexpr int kRowBytes = 8;
  using Expanded = F32Kv;
  using Panel = F32x16;
  static Panel load_panel(const uint8_t* p, int part) { return PairKv::load_panel(p, part); }
  static F32x16 multiply_add(const Panel& panel, const uint8_t* x, int part, const F32x16& sum) {
    return F32Kv::multiply_add(panel, x + part * 4, 0, sum);
  }
};

#if NDS_AVX512_BF16
// bf16 cache by vdpbf16ps, which treats denormals as zeros.
struct DotKv {
  static constexpr int kPerStep = 2, kParts = 1;
  static constexpr int kRowBytes = 4;
  using Expanded = DotKv;
  using Panel = __m512bh;
  static Panel load_panel(const uint8_t* p, int) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p)); }
  static F32x16 multiply_add(const Panel& panel, const uint8_t* x, int, const F32x16& sum) {
    return {_mm512_dpbf16_ps(sum.v, panel, reinterpret_cast<__m512bh>(broadcast_i32(x).v))};
  }
};
#elif NDS_NEON_BF16
// bf16 cache by bfdot, which treats denormals as zeros and rounds to odd.
struct DotKv {
  static constexpr int kPerStep = 2, kParts = 1;
  static constexpr int kRowBytes = 4;
  using Expanded = DotKv;
  struct Panel {
    bfloat16x8_t v[4];
  };
  static Panel load_panel(const uint8_t* p, int) {
    return each<Panel>([&](int i) { return vld1q_bf16(reinterpret_cast<const bfloat16_t*>(p) + i * 8); });
  }
  static F32x16 multiply_add(const Panel& panel, const uint8_t* x, int, const F32x16& sum) {
    const bfloat16x8_t pair = vreinterpretq_bf16_f32(load_lane(x));
    return each<F32x16>([&](int i) { return vbfdotq_laneq_f32(sum.v[i], panel.v[i], pair, 0); });
  }
};
#endif

// Which of the two chains of a score takes a part of a step. Steps alternate between them; of a step of MixedKv, which
// is two of F32Kv, either has one part.
template <typename Kv>
constexpr int chain_of(int step_parity, int part) {
  return std::is_same_v<Kv, MixedKv> ? part : step_parity;
}

// The stored panel that is prefetched while another is read. Its size is 1 / 2^shift of that of the panel read: a panel
// that is read expanded was int8 (shift 1 from bf16, 2 from fp32) or bf16 (shift 1 from fp32).
struct Ahead {
  const uint8_t* base;
  int shift;
  const uint8_t* at(int64_t offset) const { return base + (offset >> shift); }
};

// scores[r * 32 …] = q[r] times the 32 keys of a run, summed in two chains, which hide latency and are added at the
// end.
template <typename Kv, int R>
void score_rows(const uint8_t* k_panel, const uint8_t* const* q, int head_dim, float* scores, Ahead ahead) {
  const int num_steps = head_dim / Kv::kPerStep;
  for (int first = 0; first < 2; first += kTileHalves) {
    F32x16 sums[2][R][kTileHalves];
    for (auto& chain : sums) {
      for (auto& row : chain) {
        for (F32x16& sum : row) sum = zero();
      }
    }
    const auto add_step = [&](int step, int parity) {
      const uint8_t* k = k_panel + step * 128 + first * 64;
      prefetch_l2(ahead.at(step * 128 + first * 64));
      if (kTileHalves == 2) prefetch_l2(ahead.at(step * 128 + 64));
#pragma GCC unroll 2
      for (int half = 0; half < kTileHalves; half++) {
#pragma GCC unroll 2
        for (int part = 0; part < Kv::kParts; part++) {
          const typename Kv::Panel panel = Kv::load_panel(k + half * 64, part);
#pragma GCC unroll 8
          for (int r = 0; r < R; r++) {
            F32x16& sum = sums[chain_of<Kv>(parity, part)][r][half];
            sum = Kv::multiply_add(panel, q[r] + step * Kv::kRowBytes, part, sum);
          }
        }
      }
    };
    int step = 0;
    for (; step + 1 < num_steps; step += 2) {
      add_step(step, 0);
      add_step(step + 1, 1);
    }
    if (step < num_steps) add_step(step, 0);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
      for (int half = 0; half < kTileHalves; half++) {
        store(scores + r * kRun + (first + half) * 16, sums[0][r][half] + sums[1][r][half]);
      }
    }
  }
}

// Rows of output to which a run's values are added.
struct OutRows {
  float* base;  // [rows][stride]
  int64_t stride;
  const float* factors;  // [rows] rescales a row before the addition
  uint32_t active;       // bit r; a row whose bit is clear is not written
};

// out[r][d … d + 16 V) = out[r] * factors[r] + p[r] times the 32 values of a run, in token order. p: rows of 32
// probabilities, 128 bytes apart.
// Not inlined: in a large function g++ spills sums.
template <typename Kv, int R, int V>
[[gnu::noinline]] void add_values(const uint8_t* v_panel, int64_t row_bytes, int d, const uint8_t* p,
                                  const OutRows& out, Ahead ahead) {
  F32x16 sums[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
    const F32x16 factor = set1(out.factors[r]);
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) sums[r][v] = load(out.base + r * out.stride + d + v * 16) * factor;
  }
  for (int step = 0; step < kRun / Kv::kPerStep; step++) {
    const int64_t offset = step * row_bytes + d * 4;
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) prefetch_l2(ahead.at(offset + v * 64));
#pragma GCC unroll 2
    for (int part = 0; part < Kv::kParts; part++) {
      typename Kv::Panel values[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) values[v] = Kv::load_panel(v_panel + offset + v * 64, part);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        const uint8_t* const x = p + r * (kRun * 4) + step * Kv::kRowBytes;
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) sums[r][v] = Kv::multiply_add(values[v], x, part, sums[r][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
    if ((out.active >> r & 1) == 0) continue;
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) store(out.base + r * out.stride + d + v * 16, sums[r][v]);
  }
}

// The same for all `width` columns, a multiple of 16.
template <typename Kv, int R>
void add_values(const uint8_t* v_panel, int width, const uint8_t* p, const OutRows& out, Ahead ahead) {
  // Two columns of three rows would fill AVX2's registers with 12 sums, of which g++ spills some.
  constexpr int kWide = NDS_AVX512 ? (R <= 2 ? 8 : 4) : NDS_AVX2 ? (R <= 2 ? 2 : 1) : NDS_NEON ? 2 : 1;
  const int64_t row_bytes = int64_t{width} * 4;
  int d = 0;
  for (; d + kWide * 16 <= width; d += kWide * 16) add_values<Kv, R, kWide>(v_panel, row_bytes, d, p, out, ahead);
  if (kWide > 4 && d + 64 <= width) {
    add_values<Kv, R, 4>(v_panel, row_bytes, d, p, out, ahead);
    d += 64;
  }
  if (kWide > 2 && d + 32 <= width) {
    add_values<Kv, R, 2>(v_panel, row_bytes, d, p, out, ahead);
    d += 32;
  }
  if (d < width) add_values<Kv, R, 1>(v_panel, row_bytes, d, p, out, ahead);
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
