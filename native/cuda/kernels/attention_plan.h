// What the attention kernels share on the host side: the lists of work that plan_attention writes, the memory they and
// the partial results take, and the launchers.
#pragma once
#include "cuda/kernels.h"
#include "cuda/kernels/unroll.h"

namespace nds::cuda {

// A row of attention is a (token, head of a group) pair of one KV head: row r of a sequence is head r % rows_per_token
// of token r / rows_per_token. Tiles are runs of rows.
constexpr int kSplitTileRows = 16;     // rows of an item of the split kernel: one MMA tile
constexpr int kPrefillTileRows = 128;  // rows of an item of the prefill kernel
constexpr int kMaxSplitRows = 64;      // sequences with more rows per KV head (and more than one token) are prefilled

// A work item for each KV head: a tile of rows of one sequence, over one segment of keys or all that it sees.
struct alignas(16) AttentionItem {
  int32_t seq, tile;
  int32_t first_token, query_len, context_len;
  int32_t table;    // where in block_tables the sequence's table begins
  int32_t segment;  // -1: all
  int32_t partial;  // first row of the sequence's partial results, [segments, kv heads, rows]; -1 where segment is -1
};

// Pointers into the memory of the plan and of the scratch.
struct AttentionPlan {
  int32_t* counts;  // [2] split items, prefill items
  AttentionItem* split_items;
  AttentionItem* prefill_items;
  uint32_t* counters;  // [max_seqs, max_split_tiles, kv heads] segments done; zeros between launches
  uint32_t* ticket;    // [1] split items that blocks took after their first two; 0 between launches
  int32_t partial_rows, max_split_items, max_prefill_items, max_split_tiles, max_seqs, rows_per_token;
};
struct AttentionPartials {
  float* sums;    // [partial_rows, head_dim] of p v
  float2* norms;  // [partial_rows] maximum in units of log 2, and sum of p
};

// Whether the tensor core kernels serve a model: a property of its shapes and types, never of a pass.
bool attention_on_tensor_cores(const AttentionLimits& limits);
AttentionPlan attention_plan(const AttentionLimits& limits, void* memory);

// Number of blocks that reside on the whole device at once.
int num_resident_blocks(int blocks_per_multiprocessor);

void launch_plain_attention(const AttentionArgs& args, LaunchPlace place);
void launch_split_attention(const AttentionArgs& args, const AttentionPlan& plan, LaunchPlace place);
void launch_prefill_attention(const AttentionArgs& args, const AttentionPlan& plan, LaunchPlace place);

}  // namespace nds::cuda
