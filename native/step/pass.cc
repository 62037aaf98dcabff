// One forward pass of one model.
#include "step/pass.h"

namespace nds {

void Pass::clear(int64_t step_number, bool draft, const int32_t* tables) {
  step = step_number;
  is_draft = draft;
  is_greedy = false;
  rule = DraftRule::coupled;
  seqs.clear();
  token_ids.clear();
  positions.clear();
  kv_slots.clear();
  cu_query_lens.assign(1, 0);
  context_lens.clear();
  first_blocks.clear();
  block_tables = tables;
  block_copies = {};
  rows.clear();
  begun_runs.clear();
  logprob_rows.clear();
}

PassSequence& Pass::add(const Slot& slot, int position, const int32_t* tokens, int num_tokens, int32_t first_block,
                        int block_size) {
  PassSequence& seq = seqs.emplace_back();
  seq.slot = &slot;
  seq.begin = static_cast<int>(token_ids.size());
  seq.num_rows = num_tokens;
  seq.position = position;
  seq.first_sampled = seq.begin + num_tokens - 1;
  const int32_t* const blocks = block_tables + first_block;
  for (int i = 0; i < num_tokens; i++) {
    const int p = position + i;
    token_ids.push_back(tokens[i]);
    positions.push_back(p);
    kv_slots.push_back(int64_t{blocks[p / block_size]} * block_size + p % block_size);
  }
  cu_query_lens.push_back(static_cast<int32_t>(token_ids.size()));
  context_lens.push_back(position + num_tokens);
  first_blocks.push_back(first_block);
  return seq;
}

}  // namespace nds
