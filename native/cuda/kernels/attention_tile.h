// What the two tensor core attention kernels share, so that a row has the same bits in both: tiles in shared memory,
// loads from the paged cache, what a row sees, exp, and the fold of segments.
#pragma once
#include "attention_plan.h"
#include "cuda/math.h"

namespace nds::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr float kLog2E = 1.44269504089f;

// 2^x for x <= 0 within 2 ulp; 2^-126 for x < -126 and for NaN; 1 at 0.
__device__ inline float exp2_nonpositive(float x) {
  const float clamped = fmaxf(x, -126.0f);
  const float shifted = __fadd_rn(clamped, 12582912.0f);  // 1.5 * 2^23: the integer nearest to x in its low bits
  const float r = __fsub_rn(clamped, __fsub_rn(shifted, 12582912.0f));
  float y = __fmaf_rn(1.326472722e-03f, r, 9.671512640e-03f);
  y = __fmaf_rn(y, r, 5.550733743e-02f);
  y = __fmaf_rn(y, r, 2.402224209e-01f);
  y = __fmaf_rn(y, r, 6.931469776e-01f);
  y = __fmaf_rn(y, r, 1.0f);
  return bits_to_float(float_to_bits(y) + (float_to_bits(shifted) << 23));
}

__device__ inline uint32_t pack_bf16(float x, float y) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

// Over the four lanes that hold a row of an MMA accumulator.
__device__ inline float quad_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, 1));
  return fmaxf(value, __shfl_xor_sync(kAllLanes, value, 2));
}
__device__ inline float quad_sum(float value) {
  value = __fadd_rn(value, __shfl_xor_sync(kAllLanes, value, 1));
  return __fadd_rn(value, __shfl_xor_sync(kAllLanes, value, 2));
}

// Index of 16-byte chunk `chunk` of a row of a panel [rows, kHeadDim] in shared memory. The same chunk of eight
// adjacent rows lies in different banks.
template <int kHeadDim, typename Element = __nv_bfloat16>
__device__ inline int panel_index(int row, int chunk) {
  constexpr int kPerChunk = 16 / sizeof(Element), kChunks = kHeadDim / kPerChunk;
  // All banks hold 8 chunks: a row of at least 8, or two rows of 4.
  return row * kHeadDim + (chunk ^ (kChunks < 8 ? row / 2 & 3 : row & 7)) * kPerChunk;
}

// Copies kRows <= 32 rows into rows first_row … of a panel. Lane i knows where row i lies, in units of 16 bytes from
// base; rows at -1 become zeros.
template <int kHeadDim, int kRows, typename Element>
__device__ inline void load_rows(Element* panel, int first_row, const uint8_t* base, int offset) {
  constexpr int kChunks = kHeadDim * sizeof(Element) / 16, kAtOnce = 32 / kChunks;
  const int lane = threadIdx.x % 32, chunk = lane % kChunks;
  NDS_UNROLL()
  for (int i = 0; i < kRows / kAtOnce; i++) {
    const int row = i * kAtOnce + lane / kChunks;
    const int from = __shfl_sync(kAllLanes, offset, row);
    const uint8_t* source = from < 0 ? base : base + int64_t{from} * 16 + chunk * 16;
    simt::cp_async16(panel + panel_index<kHeadDim, Element>(first_row + row, chunk), source, from >= 0);
  }
}

// Heads of this rank that share a KV head: first_head + i for i < num_heads <= rows_per_token.
struct HeadGroup {
  int first_head, num_heads;
};
__device__ inline HeadGroup head_group(const HeadLayout& heads, int kv_head) {
  const int begin = (heads.first_kv_head + kv_head) * heads.group_size - heads.first_head;
  const int first = max(begin, 0);
  return {first, min(begin + heads.group_size, heads.num_heads) - first};
}

// A row of an item: what it sees and where it lies. Rows past the item's see nothing.
struct AttentionRow {
  int token = -1, head = -1;  // of the pass, of the rank; -1: no such row
  int position = -1;          // last key that it sees
  int oldest = 0;             // first key that it sees
};
__device__ inline AttentionRow attention_row(const AttentionItem& item, const HeadGroup& group, int rows_per_token,
                                             int sliding_window, int row) {
  AttentionRow result;
  const int token = row / rows_per_token, head = row % rows_per_token;
  if (token >= item.query_len || head >= group.num_heads) return result;
  result.token = item.first_token + token;
  result.head = group.first_head + head;
  result.position = item.context_len - item.query_len + token;
  if (sliding_window > 0) result.oldest = max(0, result.position + 1 - sliding_window);
  return result;
}

// Keys [begin, end) that some row of a tile sees.
struct KeyRange {
  int begin, end;
};
__device__ inline KeyRange key_range(const AttentionItem& item, int tile_rows, int rows_per_token, int sliding_window) {
  const int first_token = item.tile * tile_rows / rows_per_token;
  const int last_token = min(((item.tile + 1) * tile_rows - 1) / rows_per_token, item.query_len - 1);
  const int num_cached = item.context_len - item.query_len;
  const int begin = sliding_window > 0 ? max(0, num_cached + first_token + 1 - sliding_window) : 0;
  return {begin, num_cached + last_token + 1};
}

// The block of a key, -1 where no row of the tile sees it. Separate from key_offset, so that the load of the block
// table is in flight early.
__device__ inline int key_block(const AttentionArgs& args, const AttentionItem& item, const KeyRange& keys, int key) {
  if (key < keys.begin || key >= keys.end) return -1;
  return args.batch.block_tables[item.table + key / args.kv.block_size];
}
// Where K of a key lies from the cache's base, in units of 16 bytes; -1 where there is no block.
template <typename Element>
__device__ inline int key_offset(const KvCache& kv, int kv_head, int block, int key) {
  if (block < 0) return -1;
  const int64_t row = int64_t{key % kv.block_size} * kv.head_dim * int64_t{sizeof(Element)};
  return static_cast<int>((block * kv.block_stride + kv_head * kv.tile_bytes + row) / 16);
}

// State of a row after the segments so far: the max score in units of log 2, and the sum of p.
struct SegmentFold {
  float max = -infinity(), sum = 0;
};
// Factors of the sums so far and of the sums of a segment when the segment joins.
struct FoldFactors {
  float before, segment;
};
// Only for a row that sees some key of the segment, so that segment_max > -inf.
__device__ inline FoldFactors fold(SegmentFold* row, float segment_max, float segment_sum) {
  const float new_max = fmaxf(row->max, segment_max);
  const FoldFactors factors{exp2_nonpositive(__fsub_rn(row->max, new_max)),
                            exp2_nonpositive(__fsub_rn(segment_max, new_max))};
  row->sum = __fmaf_rn(row->sum, factors.before, __fmul_rn(segment_sum, factors.segment));
  row->max = new_max;
  return factors;
}
__device__ inline float folded(float before, float segment, const FoldFactors& factors) {
  return __fmaf_rn(before, factors.before, __fmul_rn(segment, factors.segment));
}

// Zeros past the last head of a row of the output, by the lanes of a warp.
__device__ inline void zero_output_padding(const AttentionArgs& args, int token, int lane) {
  __nv_bfloat16* row = static_cast<__nv_bfloat16*>(args.out) + int64_t{token} * args.ld_out;
  const int width = args.heads.num_heads * args.kv.head_dim;
  for (int64_t i = width + lane; i < args.ld_out; i += 32) row[i] = __float2bfloat16(0.0f);
}

}  // namespace nds::cuda
