// Sequences that are split between blocks: partial results per segment, folded by the last block of a tile.
#pragma once
#include "attention_int8.h"

namespace nds::cuda {

constexpr int kSplitWarps = 4;

// A segment of an item for one KV head.
struct SplitWork {
  int64_t index;  // item * kv heads + KV head
  AttentionItem item;
  int kv_head;
  KeyRange keys;
  int segment, end_segment;
};

struct SplitLaunch {
  AttentionArgs args;
  AttentionPlan plan;
  AttentionPartials partials;
  float scale;  // args.scale * log2(e): scores in units of log 2
};

// First partial row of a segment of the item, for one KV head.
__device__ inline int64_t partial_row(const SplitLaunch& launch, const AttentionItem& item, int kv_head, int segment) {
  const int rows = item.query_len * launch.plan.rows_per_token;
  return item.partial + (int64_t{segment} * launch.args.heads.num_kv_heads + kv_head) * rows;
}

// The first of the two adjacent columns, among a warp's, of results [n][0 … 1] and [n][2 … 3].
template <typename Element>
__device__ int pair_column(int n) {
  const int quad = threadIdx.x % 4;
  return kIsInt8<Element> ? n / 2 * 16 + quad * 4 + n % 2 * 2 : n * 8 + quad * 2;
}

template <int kHeadDim, typename Element>
__device__ void write_partials(const SplitLaunch& launch, const SplitWork& work, const float (&maxima)[2],
                               const float (&sums)[2], const float (&out)[kHeadDim / 32][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t first = partial_row(launch, work.item, work.kv_head, work.segment);
  const int num_rows = work.item.query_len * launch.plan.rows_per_token;
  NDS_UNROLL()
  for (int half = 0; half < 2; half++) {
    const int row = work.item.tile * kSplitTileRows + half * 8 + lane / 4;
    if (row >= num_rows) continue;
    float* to = launch.partials.sums + (first + row) * kHeadDim + warp * (kHeadDim / 4);
    NDS_UNROLL()
    for (int n = 0; n < kHeadDim / 32; n++) {
      *reinterpret_cast<float2*>(to + pair_column<Element>(n)) = float2{out[n][half * 2], out[n][half * 2 + 1]};
    }
    if (warp == 0 && lane % 4 == 0) launch.partials.norms[first + row] = float2{maxima[half], sums[half]};
  }
}

// Folds the segments of a tile: one warp per row, head_dim / 32 adjacent columns per lane.
template <int kHeadDim>
__device__ void fold_partials(const SplitLaunch& launch, const SplitWork& work) {
  constexpr int kColumns = kHeadDim / 32;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const AttentionItem& item = work.item;
  const HeadGroup group = head_group(launch.args.heads, work.kv_head);
  const int num_segments = (item.context_len + kSegment - 1) / kSegment;
  const int64_t stride = partial_row(launch, item, 0, 1) - item.partial;
  for (int r = item.tile * kSplitTileRows + warp; r < (item.tile + 1) * kSplitTileRows; r += kSplitWarps) {
    const AttentionRow row = attention_row(item, group, launch.plan.rows_per_token, launch.args.sliding_window, r);
    if (row.token < 0) continue;
    const int64_t first = partial_row(launch, item, work.kv_head, 0) + r;
    SegmentFold total;
    float out[kColumns] = {};
    NDS_UNROLL(4)
    for (int segment = 0; segment < num_segments; segment++) {
      const int64_t at = first + segment * stride;
      const float2 norm = launch.partials.norms[at];
      const float* from = launch.partials.sums + at * kHeadDim + lane * kColumns;
      float part[kColumns];
      NDS_UNROLL()
      for (int i = 0; i < kColumns; i += 2) {
        const float2 pair = *reinterpret_cast<const float2*>(from + i);
        part[i] = pair.x;
        part[i + 1] = pair.y;
      }
      if (norm.x == -infinity()) continue;
      const FoldFactors factors = fold(&total, norm.x, norm.y);
      NDS_UNROLL()
      for (int i = 0; i < kColumns; i++) out[i] = folded(out[i], part[i], factors);
    }
    const float inverse = __fdiv_rn(1.0f, total.sum);
    __nv_bfloat16* to = static_cast<__nv_bfloat16*>(launch.args.out) + row.token * launch.args.ld_out;
    NDS_UNROLL()
    for (int i = 0; i < kColumns; i += 2) {
      *reinterpret_cast<uint32_t*>(to + row.head * kHeadDim + lane * kColumns + i) =
          pack_bf16(__fmul_rn(out[i], inverse), __fmul_rn(out[i + 1], inverse));
    }
    if (row.head == launch.args.heads.num_heads - 1) zero_output_padding(launch.args, row.token, lane);
  }
}

// Counts this segment of a split item; the block that counts the last one folds them all.
template <int kHeadDim>
__device__ void join_segments(const SplitLaunch& launch, const SplitWork& work, int* is_last) {
  const AttentionItem& item = work.item;
  const int num_kv_heads = launch.args.heads.num_kv_heads;
  const int num_segments = (item.context_len + kSegment - 1) / kSegment;
  uint32_t* counter = launch.plan.counters +
                      (int64_t{item.seq} * launch.plan.max_split_tiles + item.tile) * num_kv_heads + work.kv_head;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();  // the block's partial results before the count
    *is_last = atomicAdd(counter, 1u) == static_cast<uint32_t>(num_segments) - 1;
    __threadfence();  // the count before the other blocks' partial results
  }
  __syncthreads();
  if (*is_last == 0) return;
  fold_partials<kHeadDim>(launch, work);
  if (threadIdx.x == 0) atomicExch(counter, 0u);
}

}  // namespace nds::cuda
