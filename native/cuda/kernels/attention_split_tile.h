// One segment of keys in shared memory, by the warps of a split attention block: scores, probabilities, p v.
#pragma once
#include "attention_join.h"

namespace nds::cuda {

constexpr int kWarpKeys = kSegment / kSplitWarps;  // keys that a warp loads and scores
constexpr int kWeightStride = kSegment + 8;        // keeps ldmatrix free of bank conflicts

template <typename Element>
struct SplitShared {
  Element* keys;           // [kSegment, head_dim]
  Element* values;         // [kSegment, head_dim]
  __nv_bfloat16* weights;  // [kSplitTileRows, kWeightStride] p
  float* maxima;           // [kSplitWarps, kSplitTileRows] of a warp's scores
  float* sums;             // [kSplitWarps, kSplitTileRows, 4] of a warp's p, by lane of the quad
  int* is_last;
  uint32_t* ticket;
};

// Scales of an int8 cache of this lane's key, 0 where no row of the tile sees it: key lane of the warp's keys.
struct KeyScales {
  float key, value;
};
// Of column i % 2 of key tile n of an MMA accumulator.
__device__ inline float scale_of(float scales, int n, int i) {
  return __shfl_sync(kAllLanes, scales, n * 8 + threadIdx.x % 4 * 2 + i);
}

// Adds q k of this warp's keys to scores [16, kWarpKeys].
template <int kHeadDim>
__device__ void multiply_keys(const __nv_bfloat16* keys, const uint32_t (&q)[kHeadDim / 16][4],
                              float (&scores)[kWarpKeys / 8][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  NDS_UNROLL()
  for (int k = 0; k < kHeadDim / 16; k++) {
    NDS_UNROLL()
    for (int n = 0; n < kWarpKeys / 8; n += 2) {
      uint32_t b[4];
      const int row = warp * kWarpKeys + n * 8 + lane / 16 * 8 + lane % 8;
      simt::ldmatrix_x4(b, keys + panel_index<kHeadDim>(row, k * 2 + lane / 8 % 2));
      simt::mma_bf16(scores[n], q[k], b[0], b[1]);
      simt::mma_bf16(scores[n + 1], q[k], b[2], b[3]);
    }
  }
}

// A lane reads four adjacent integers of a key where bf16 has two pairs eight apart: the columns of each 16 are
// multiplied in the order of load_queries.
template <int kHeadDim>
__device__ void multiply_keys(const int8_t* keys, const uint32_t (&q)[kHeadDim / 16][4],
                              float (&scores)[kWarpKeys / 8][4]) {
  static_assert(kWarpKeys == 32);
  const int row = threadIdx.x;
  NDS_UNROLL()
  for (int k = 0; k < kHeadDim / 16; k++) {
    uint32_t b[4];
    simt::ldmatrix_x4(b, keys + panel_index<kHeadDim, int8_t>(row, k));
    NDS_UNROLL()
    for (int n = 0; n < 4; n++) simt::mma_bf16(scores[n], q[k], widen_low(b[n]), widen_high(b[n]));
  }
}

// Scores [16, kWarpKeys] of this warp's keys; -inf where a row does not see the key.
template <int kHeadDim, typename Element>
__device__ void score(const SplitShared<Element>& shared, const KeyScales& scales,
                      const uint32_t (&q)[kHeadDim / 16][4], const AttentionRow (&rows)[2], int first_key,
                      float (&scores)[kWarpKeys / 8][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  multiply_keys<kHeadDim>(shared.keys, q, scores);
  NDS_UNROLL()
  for (int n = 0; n < kWarpKeys / 8; n++) {
    NDS_UNROLL()
    for (int i = 0; i < 2; i++) {
      const int key = first_key + warp * kWarpKeys + n * 8 + lane % 4 * 2 + i;
      const float scale = kIsInt8<Element> ? scale_of(scales.key, n, i) : 1;
      NDS_UNROLL()
      for (int half = 0; half < 2; half++) {
        float& s = scores[n][half * 2 + i];
        if (kIsInt8<Element>) s = __fmul_rn(s, scale);
        if (key < rows[half].oldest || key > rows[half].position) s = -infinity();
      }
    }
  }
}

// Row maxima of this warp's scores to shared memory.
template <typename Element>
__device__ void share_maxima(const SplitShared<Element>& shared, const float (&scores)[kWarpKeys / 8][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  NDS_UNROLL()
  for (int half = 0; half < 2; half++) {
    float largest = -infinity();
    NDS_UNROLL()
    for (int n = 0; n < kWarpKeys / 8; n++) {
      largest = fmaxf(largest, fmaxf(scores[n][half * 2], scores[n][half * 2 + 1]));
    }
    largest = quad_max(largest);
    if (lane % 4 == 0) shared.maxima[warp * kSplitTileRows + half * 8 + lane / 4] = largest;
  }
}

// Row maxima of the segment, times scale.
template <typename Element>
__device__ void join_maxima(const SplitShared<Element>& shared, float scale, float (&maxima)[2]) {
  NDS_UNROLL()
  for (int half = 0; half < 2; half++) {
    float largest = -infinity();
    NDS_UNROLL()
    for (int w = 0; w < kSplitWarps; w++) {
      largest = fmaxf(largest, shared.maxima[w * kSplitTileRows + half * 8 + threadIdx.x % 32 / 4]);
    }
    maxima[half] = __fmul_rn(largest, scale);
  }
}

// p of this warp's keys, times V's scale, to shared memory, and this lane's share of the sums of p. maxima: of the
// segment, scaled.
template <typename Element>
__device__ void exponentiate(const SplitShared<Element>& shared, const KeyScales& scales, float scale,
                             const float (&maxima)[2], const float (&scores)[kWarpKeys / 8][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float sums[2] = {0, 0};
  NDS_UNROLL()
  for (int n = 0; n < kWarpKeys / 8; n++) {
    float value_scales[2] = {1, 1};
    if (kIsInt8<Element>) {
      value_scales[0] = scale_of(scales.value, n, 0);
      value_scales[1] = scale_of(scales.value, n, 1);
    }
    NDS_UNROLL()
    for (int half = 0; half < 2; half++) {
      float weights[2];
      NDS_UNROLL()
      for (int i = 0; i < 2; i++) {
        const float s = scores[n][half * 2 + i];
        const float p = s == -infinity() ? 0.0f : exp2_nonpositive(__fmaf_rn(s, scale, -maxima[half]));
        sums[half] = __fadd_rn(sums[half], p);
        weights[i] = kIsInt8<Element> ? scaled_weight(p, value_scales[i]) : p;
      }
      const int column = warp * kWarpKeys + n * 8 + lane % 4 * 2;
      *reinterpret_cast<uint32_t*>(shared.weights + (half * 8 + lane / 4) * kWeightStride + column) =
          pack_bf16(weights[0], weights[1]);
    }
  }
  NDS_UNROLL()
  for (int half = 0; half < 2; half++) {
    shared.sums[(warp * kSplitTileRows + half * 8 + lane / 4) * 4 + lane % 4] = sums[half];
  }
}

// Sums of p over the segment: lane by lane over the warps, then over the quad.
template <typename Element>
__device__ void join_sums(const SplitShared<Element>& shared, float (&sums)[2]) {
  const int lane = threadIdx.x % 32;
  NDS_UNROLL()
  for (int half = 0; half < 2; half++) {
    const float* parts = shared.sums + (half * 8 + lane / 4) * 4 + lane % 4;
    float sum = parts[0];
    NDS_UNROLL()
    for (int w = 1; w < kSplitWarps; w++) sum = __fadd_rn(sum, parts[w * kSplitTileRows * 4]);
    sums[half] = quad_sum(sum);
  }
}

// out [16, head_dim / 4] = p v of this warp's columns, over the keys of the segment in order. Where a column lies:
// pair_column.
template <int kHeadDim>
__device__ void multiply_values(const SplitShared<__nv_bfloat16>& shared, float (&out)[kHeadDim / 32][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  NDS_UNROLL()
  for (int k = 0; k < kSegment / 16; k++) {
    uint32_t a[4];
    simt::ldmatrix_x4(a, shared.weights + lane % 16 * kWeightStride + k * 16 + lane / 16 * 8);
    NDS_UNROLL()
    for (int n = 0; n < kHeadDim / 32; n += 2) {
      uint32_t b[4];
      const int chunk = warp * (kHeadDim / 32) + n + lane / 16;
      simt::ldmatrix_x4_trans(b, shared.values + panel_index<kHeadDim>(k * 16 + lane % 16, chunk));
      simt::mma_bf16(out[n], a, b[0], b[1]);
      simt::mma_bf16(out[n + 1], a, b[2], b[3]);
    }
  }
}

// A transposed 16-bit element is two adjacent columns of a key: one MMA takes the even columns of 16, one the odd ones.
template <int kHeadDim>
__device__ void multiply_values(const SplitShared<int8_t>& shared, float (&out)[kHeadDim / 32][4]) {
  constexpr int kChunks = kHeadDim / 64;  // of 16 columns, a warp's
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  uint32_t a[4];
  NDS_UNROLL()
  for (int i = 0; i < kSegment / 16 * kChunks; i += 2) {  // i: 16 keys of a chunk
    const int mine = i + lane / 16, chunk = warp * kChunks + mine % kChunks;
    uint32_t b[4];
    simt::ldmatrix_x4_trans(b, shared.values + panel_index<kHeadDim, int8_t>(mine / kChunks * 16 + lane % 16, chunk));
    NDS_UNROLL()
    for (int j = 0; j < 2; j++) {
      const int k = (i + j) / kChunks, n = (i + j) % kChunks * 2;
      if (n == 0) simt::ldmatrix_x4(a, shared.weights + lane % 16 * kWeightStride + k * 16 + lane / 16 * 8);
      simt::mma_bf16(out[n], a, widen_even(b[j * 2]), widen_even(b[j * 2 + 1]));
      simt::mma_bf16(out[n + 1], a, widen_odd(b[j * 2]), widen_odd(b[j * 2 + 1]));
    }
  }
  // Of four adjacent columns a lane has the even ones in out[n] and the odd ones in out[n + 1].
  NDS_UNROLL()
  for (int n = 0; n < kHeadDim / 32; n += 2) {
    NDS_UNROLL()
    for (int half = 0; half < 2; half++) {
      const float third = out[n][half * 2 + 1];
      out[n][half * 2 + 1] = out[n + 1][half * 2];
      out[n + 1][half * 2] = third;
    }
  }
}

}  // namespace nds::cuda
