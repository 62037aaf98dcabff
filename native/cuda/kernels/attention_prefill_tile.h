// One segment of keys by a warp of a prefill attention block: scores, probabilities, p v.
#pragma once
#include "attention_int8.h"

namespace nds::cuda {

constexpr int kPrefillWarps = kPrefillTileRows / 16;
constexpr int kKeyTiles = kSegment / 8;

// bf16 panels of K and V of a segment from int8 panels, by all threads of the block. K's columns are in the order that
// load_query expects.
template <int kHeadDim>
__device__ void widen_segment(const int8_t* int8_keys, const int8_t* int8_values, __nv_bfloat16* keys,
                              __nv_bfloat16* values) {
  constexpr int kThreadsPerRow = kPrefillWarps * 32 / kSegment;
  // Adjacent lanes take adjacent rows, so that they meet in no bank.
  const int row = threadIdx.x % kSegment;
  NDS_UNROLL()
  for (int chunk = threadIdx.x / kSegment; chunk < kHeadDim / 16; chunk += kThreadsPerRow) {
    const int from = panel_index<kHeadDim, int8_t>(row, chunk);
    const int first = panel_index<kHeadDim>(row, chunk * 2), second = panel_index<kHeadDim>(row, chunk * 2 + 1);
    const uint4 k = *reinterpret_cast<const uint4*>(int8_keys + from);
    *reinterpret_cast<uint4*>(keys + first) = uint4{widen_low(k.x), widen_low(k.y), widen_low(k.z), widen_low(k.w)};
    *reinterpret_cast<uint4*>(keys + second) =
        uint4{widen_high(k.x), widen_high(k.y), widen_high(k.z), widen_high(k.w)};
    const uint4 v = *reinterpret_cast<const uint4*>(int8_values + from);
    *reinterpret_cast<uint4*>(values + first) = uint4{widen_low(v.x), widen_high(v.x), widen_low(v.y), widen_high(v.y)};
    *reinterpret_cast<uint4*>(values + second) =
        uint4{widen_low(v.z), widen_high(v.z), widen_low(v.w), widen_high(v.w)};
  }
}

// Queries of a warp's rows as an A fragment. Over an int8 cache the columns of each 16 are in the order of the split
// kernel, which reads four adjacent integers of a key at once.
template <int kHeadDim, typename Element>
__device__ void load_query(const __nv_bfloat16* queries, int k, uint32_t (&a)[4]) {
  const int row = threadIdx.x / 32 * 16, lane = threadIdx.x % 32;
  if constexpr (kIsInt8<Element>) {
    NDS_UNROLL()
    for (int half = 0; half < 2; half++) {
      const int at = panel_index<kHeadDim>(row + half * 8 + lane / 4, k * 2 + lane % 4 / 2) + lane % 2 * 4;
      const uint2 pairs = *reinterpret_cast<const uint2*>(queries + at);
      a[half] = pairs.x;
      a[2 + half] = pairs.y;
    }
  } else {
    simt::ldmatrix_x4(a, queries + panel_index<kHeadDim>(row + lane % 16, k * 2 + lane / 16));
  }
}

// Scores [16, kSegment] of a warp's rows.
template <int kHeadDim, typename Element>
__device__ void score(const __nv_bfloat16* queries, const __nv_bfloat16* keys, float (&scores)[kKeyTiles][4]) {
  const int lane = threadIdx.x % 32;
  NDS_UNROLL()
  for (int k = 0; k < kHeadDim / 16; k++) {
    uint32_t a[4];
    load_query<kHeadDim, Element>(queries, k, a);
    NDS_UNROLL()
    for (int n = 0; n < kKeyTiles; n += 2) {
      uint32_t b[4];
      simt::ldmatrix_x4(b, keys + panel_index<kHeadDim>(n * 8 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
      simt::mma_bf16(scores[n], a, b[0], b[1]);
      simt::mma_bf16(scores[n + 1], a, b[2], b[3]);
    }
  }
}

// Times K's scales [kSegment] of an int8 cache.
__device__ inline void scale_scores(const float* scales, float (&scores)[kKeyTiles][4]) {
  NDS_UNROLL()
  for (int n = 0; n < kKeyTiles; n++) {
    const float2 scale = *reinterpret_cast<const float2*>(scales + n * 8 + threadIdx.x % 4 * 2);
    NDS_UNROLL()
    for (int half = 0; half < 2; half++) {
      scores[n][half * 2] = __fmul_rn(scores[n][half * 2], scale.x);
      scores[n][half * 2 + 1] = __fmul_rn(scores[n][half * 2 + 1], scale.y);
    }
  }
}

// -inf where a row does not see the key.
__device__ inline void mask(const AttentionRow (&rows)[2], int first_key, float (&scores)[kKeyTiles][4]) {
  NDS_UNROLL()
  for (int n = 0; n < kKeyTiles; n++) {
    NDS_UNROLL()
    for (int i = 0; i < 4; i++) {
      const int key = first_key + n * 8 + threadIdx.x % 4 * 2 + i % 2;
      const AttentionRow& row = rows[i / 2];
      if (key < row.oldest || key > row.position) scores[n][i] = -infinity();
    }
  }
}

// p of a segment, times V's scales [kSegment] of an int8 cache, as A fragments, with the rows' maxima (scaled) and sums
// of p; p of a masked score is 0.
template <typename Element, bool kIsMasked>
__device__ void exponentiate(const float* value_scales, float scale, const float (&scores)[kKeyTiles][4],
                             float (&maxima)[2], float (&sums)[2], uint32_t (&weights)[kSegment / 16][4]) {
  NDS_UNROLL()
  for (int half = 0; half < 2; half++) {
    float largest = -infinity();
    NDS_UNROLL()
    for (int n = 0; n < kKeyTiles; n++) largest = fmaxf(largest, fmaxf(scores[n][half * 2], scores[n][half * 2 + 1]));
    maxima[half] = __fmul_rn(quad_max(largest), scale);
    // Sums quarters of the segment, as the four warps of the split kernel do: same bits.
    float sum = 0;
    NDS_UNROLL()
    for (int quarter = 0; quarter < 4; quarter++) {
      float part = 0;
      NDS_UNROLL()
      for (int j = 0; j < kKeyTiles / 4; j++) {
        const int n = quarter * (kKeyTiles / 4) + j;
        float pair[2];
        float2 value_scale = {1, 1};
        if (kIsInt8<Element>)
          value_scale = *reinterpret_cast<const float2*>(value_scales + n * 8 + threadIdx.x % 4 * 2);
        NDS_UNROLL()
        for (int i = 0; i < 2; i++) {
          const float s = scores[n][half * 2 + i];
          float p = exp2_nonpositive(__fmaf_rn(s, scale, -maxima[half]));
          if (kIsMasked && s == -infinity()) p = 0;
          part = __fadd_rn(part, p);
          pair[i] = kIsInt8<Element> ? scaled_weight(p, i == 0 ? value_scale.x : value_scale.y) : p;
        }
        weights[n / 2][n % 2 * 2 + half] = pack_bf16(pair[0], pair[1]);
      }
      sum = quarter == 0 ? part : __fadd_rn(sum, part);
    }
    sums[half] = quad_sum(sum);
  }
}

// Folds p v of a segment into total [16, head_dim].
template <int kHeadDim>
__device__ void add_values(const uint32_t (&weights)[kSegment / 16][4], const __nv_bfloat16* values,
                           const FoldFactors (&factors)[2], const bool (&sees)[2], bool all_see,
                           float (&total)[kHeadDim / 8][4]) {
  constexpr int kColumnTiles = 4;  // column tiles at once
  const int lane = threadIdx.x % 32;
  NDS_UNROLL()
  for (int first = 0; first < kHeadDim / 8; first += kColumnTiles) {
    float out[kColumnTiles][4] = {};
    NDS_UNROLL()
    for (int k = 0; k < kSegment / 16; k++) {
      NDS_UNROLL()
      for (int n = 0; n < kColumnTiles; n += 2) {
        uint32_t b[4];
        simt::ldmatrix_x4_trans(b, values + panel_index<kHeadDim>(k * 16 + lane % 16, first + n + lane / 16));
        simt::mma_bf16(out[n], weights[k], b[0], b[1]);
        simt::mma_bf16(out[n + 1], weights[k], b[2], b[3]);
      }
    }
    NDS_UNROLL()
    for (int n = 0; n < kColumnTiles; n++) {
      NDS_UNROLL()
      for (int i = 0; i < 4; i++) {
        if (all_see || sees[i / 2]) total[first + n][i] = folded(total[first + n][i], out[n][i], factors[i / 2]);
      }
    }
  }
}

}  // namespace nds::cuda
