// Sequences that are split between blocks: partial results per segment, folded by the last block of a tile.
#pragma once
#include "attention_int8.h"

namespace nds::cuda {

constexpr int kSplitWarps = 4;

// A segment of an item for one KV head.
struct SplitWork {
  int index;  // item * kv heads + KV head
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
__device__ inline int partial_row(const SplitLaunch& launch, const AttentionItem& item, int kv_head, int segment) {
  const int rows = item.query_len * launch.plan.rows_per_token;
  return item.partial + (segment * launch.args.heads.num_kv_heads + kv_head) * rows;
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
  const int first = partial_row(launch, work.item, work.kv_head, work.segment);
  const int num_rows = work.item.query_len * launch.plan.rows_per_token;
  NDS_UNROLL()
  for (int half = 0; half < 2; half++) {
    const int row = work.item.tile * kSplitTileRows + half * 8 + lane / 4;
    if (row >= num_rows) continue;
    float* to = launch.partials.sums + int64_t{first + row} * kHeadDim + warp * (kHeadDim / 4);
    NDS_UNROLL()
    for (int n = 0; n < kHeadDim / 32; n++) {
      *reinterpret_cast<float2*>(to + pair_column<Element>(n)) = float2{out[n][half * 2], out[n][half * 2 + 1]};
    }
    if (warp == 0 && lane % 4 == 0) launch.partials.norms[first + row] = float2{maxima[half], sums[half]};
  }
}

// Partial results of up to 32 segments of a row, a segment a lane.
struct FoldLane {
  FoldFactors factors;  // .segment is -1 where the row sees no key of the segment
  float sum;            // of p, times factors.segment
};

// What fold() would make of each segment after those before it, which *largest stands for; updates it.
__device__ inline FoldLane fold_lane(float2 norm, float* largest) {
  const int lane = threadIdx.x % 32;
  float new_max = norm.x;
  for (int i = 1; i < 32; i *= 2) {
    const float other = __shfl_up_sync(kAllLanes, new_max, i);
    if (lane >= i) new_max = fmaxf(new_max, other);
  }
  new_max = fmaxf(new_max, *largest);
  float old_max = __shfl_up_sync(kAllLanes, new_max, 1);
  if (lane == 0) old_max = *largest;
  *largest = __shfl_sync(kAllLanes, new_max, 31);
  FoldLane result{{exp2_nonpositive(__fsub_rn(old_max, new_max)), exp2_nonpositive(__fsub_rn(norm.x, new_max))}, 0};
  result.sum = __fmul_rn(norm.y, result.factors.segment);
  if (norm.x == -infinity()) result.factors.segment = -1;
  return result;
}

// Folds the segments of a tile. A warp takes half of a row: no load of partial results waits for another but the next
// kAhead segments'.
template <int kHeadDim>
__device__ void fold_partials(const SplitLaunch& launch, const SplitWork& work) {
  constexpr int kColumns = kHeadDim / 64, kAhead = 16;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const AttentionItem& item = work.item;
  const HeadGroup group = head_group(launch.args.heads, work.kv_head);
  const int num_segments = (item.context_len + kSegment - 1) / kSegment;
  const int stride = partial_row(launch, item, 0, 1) - item.partial;
  const int num_rows = min(item.query_len * launch.plan.rows_per_token - item.tile * kSplitTileRows, kSplitTileRows);
  for (int half = warp; half < 2 * num_rows; half += kSplitWarps) {
    const int r = item.tile * kSplitTileRows + half / 2, column = half % 2 * (kHeadDim / 2) + lane * kColumns;
    const AttentionRow row = attention_row(item, group, launch.plan.rows_per_token, launch.args.sliding_window, r);
    if (row.token < 0) continue;
    const int first = partial_row(launch, item, work.kv_head, 0) + r;
    SegmentFold total;
    float out[kColumns] = {};
    for (int begin = 0; begin < num_segments; begin += 32) {
      const int at = first + min(begin + lane, num_segments - 1) * stride, end = min(begin + 32, num_segments);
      float2 norm = launch.partials.norms[at];
      if (begin + lane >= end) norm.x = -infinity();
      const FoldLane mine = fold_lane(norm, &total.max);
      for (int ahead = begin; ahead < end; ahead += kAhead) {
        float parts[kAhead][kColumns];
        NDS_UNROLL()
        for (int i = 0; i < kAhead; i++) {
          const int source = __shfl_sync(kAllLanes, at, ahead - begin + i);
          const float* from = launch.partials.sums + int64_t{source} * kHeadDim + column;
          if constexpr (kColumns == 2) {
            const float2 pair = *reinterpret_cast<const float2*>(from);
            parts[i][0] = pair.x;
            parts[i][1] = pair.y;
          } else {
            parts[i][0] = *from;
          }
        }
        NDS_UNROLL()
        for (int i = 0; i < kAhead; i++) {
          const int source = ahead - begin + i;
          const FoldFactors factors{__shfl_sync(kAllLanes, mine.factors.before, source),
                                    __shfl_sync(kAllLanes, mine.factors.segment, source)};
          const float sum = __shfl_sync(kAllLanes, mine.sum, source);
          if (factors.segment < 0) continue;
          total.sum = __fmaf_rn(total.sum, factors.before, sum);
          NDS_UNROLL()
          for (int c = 0; c < kColumns; c++) out[c] = folded(out[c], parts[i][c], factors);
        }
      }
    }
    const float inverse = __fdiv_rn(1.0f, total.sum);
    __nv_bfloat16* to = static_cast<__nv_bfloat16*>(launch.args.out) + row.token * launch.args.ld_out;
    to += row.head * kHeadDim + column;
    if constexpr (kColumns == 2)
      *reinterpret_cast<uint32_t*>(to) = pack_bf16(__fmul_rn(out[0], inverse), __fmul_rn(out[1], inverse));
    else
      *to = __float2bfloat16_rn(__fmul_rn(out[0], inverse));
    if (half % 2 == 0 && row.head == launch.args.heads.num_heads - 1) zero_output_padding(launch.args, row.token, lane);
  }
}

// Counts this segment of a split item, whose partial results all threads have written before a barrier; the block that
// counts the last one folds them all.
template <int kHeadDim>
__device__ void join_segments(const SplitLaunch& launch, const SplitWork& work, int* is_last) {
  const AttentionItem& item = work.item;
  const int num_kv_heads = launch.args.heads.num_kv_heads;
  const int num_segments = (item.context_len + kSegment - 1) / kSegment;
  uint32_t* counter = launch.plan.counters +
                      (int64_t{item.seq} * launch.plan.max_split_tiles + item.tile) * num_kv_heads + work.kv_head;
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
