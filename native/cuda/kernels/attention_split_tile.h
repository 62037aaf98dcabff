// One segment of keys in shared memory, by the warps of a split attention block: scores, probabilities, p v.
#pragma once
#include "attention_join.h"

namespace nds::cuda {

constexpr int kWarpKeys = kSegment / kSplitWarps;  // keys that a warp loads and scores
constexpr int kWeightStride = kSegment + 8;        // keeps ldmatrix free of bank conflicts

struct SplitShared {
  __nv_bfloat16* keys;     // [kSegment, head_dim]
  __nv_bfloat16* values;   // [kSegment, head_dim]
  __nv_bfloat16* weights;  // [kSplitTileRows, kWeightStride] p
  float* maxima;           // [kSplitWarps, kSplitTileRows] of a warp's scores
  float* sums;             // [kSplitWarps, kSplitTileRows, 4] of a warp's p, by lane of the quad
  int* is_last;
};

// Scores [16, kWarpKeys] of this warp's keys; -inf where a row does not see the key.
template <int kHeadDim>
__device__ void score(const SplitShared& shared, const uint32_t (&q)[kHeadDim / 16][4], const AttentionRow (&rows)[2],
                      int first_key, float (&scores)[kWarpKeys / 8][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  NDS_UNROLL()
  for (int k = 0; k < kHeadDim / 16; k++) {
    NDS_UNROLL()
    for (int n = 0; n < kWarpKeys / 8; n += 2) {
      uint32_t b[4];
      const int row = warp * kWarpKeys + n * 8 + lane / 16 * 8 + lane % 8;
      simt::ldmatrix_x4(b, shared.keys + panel_index<kHeadDim>(row, k * 2 + lane / 8 % 2));
      simt::mma_bf16(scores[n], q[k], b[0], b[1]);
      simt::mma_bf16(scores[n + 1], q[k], b[2], b[3]);
    }
  }
  NDS_UNROLL()
  for (int n = 0; n < kWarpKeys / 8; n++) {
    NDS_UNROLL()
    for (int i = 0; i < 4; i++) {
      const int key = first_key + warp * kWarpKeys + n * 8 + lane % 4 * 2 + i % 2;
      const AttentionRow& row = rows[i / 2];
      if (key < row.oldest || key > row.position) scores[n][i] = -infinity();
    }
  }
}

// Row maxima of this warp's scores to shared memory.
__device__ inline void share_maxima(const SplitShared& shared, const float (&scores)[kWarpKeys / 8][4]) {
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
__device__ inline void join_maxima(const SplitShared& shared, float scale, float (&maxima)[2]) {
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

// p of this warp's keys to shared memory, and this lane's share of their sums. maxima: of the segment, scaled.
__device__ inline void exponentiate(const SplitShared& shared, float scale, const float (&maxima)[2],
                                    const float (&scores)[kWarpKeys / 8][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  NDS_UNROLL()
  for (int half = 0; half < 2; half++) {
    const int row = half * 8 + lane / 4;
    float sum = 0;
    NDS_UNROLL()
    for (int n = 0; n < kWarpKeys / 8; n++) {
      float p[2];
      NDS_UNROLL()
      for (int i = 0; i < 2; i++) {
        const float s = scores[n][half * 2 + i];
        p[i] = s == -infinity() ? 0.0f : exp2_nonpositive(__fmaf_rn(s, scale, -maxima[half]));
        sum = __fadd_rn(sum, p[i]);
      }
      const uint32_t pair = pack_bf16(p[0], p[1]);
      const int column = warp * kWarpKeys + n * 8 + lane % 4 * 2;
      *reinterpret_cast<uint32_t*>(shared.weights + row * kWeightStride + column) = pair;
    }
    shared.sums[(warp * kSplitTileRows + row) * 4 + lane % 4] = sum;
  }
}

// Sums of p over the segment: lane by lane over the warps, then over the quad.
__device__ inline void join_sums(const SplitShared& shared, float (&sums)[2]) {
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

// out [16, head_dim / 4] = p v of this warp's columns, over the keys of the segment in order.
template <int kHeadDim>
__device__ void multiply_values(const SplitShared& shared, float (&out)[kHeadDim / 32][4]) {
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

}  // namespace nds::cuda
