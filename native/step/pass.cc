// One forward pass of one model.
#include "step/pass.h"

#include <algorithm>

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
  hidden_rows = {};
  rows.clear();
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

void Pass::add_row(LogitRow row) {
  row.edited = row.kind == LogitRowKind::sample && params_of(row).edits_logits(num_output_at(row));
  rows.push_back(row);
}

Span<int32_t> Pass::drafts_before(const LogitRow& row) const {
  const PassSequence& seq = seqs[row.seq];
  return {seq.drafts.data(), std::max(0, row.row - seq.first_sampled)};
}

void Pass::fill(const PlanView& plan, const SlotTable& slots, std::vector<Proposal>& proposals, int block_size,
                DraftRule draft_rule) {
  clear(plan.step, false, plan.block_tables.data);
  block_copies = plan.block_copies;
  hidden_rows = plan.hidden_rows;
  rule = draft_rule;
  std::vector<int32_t> tokens;
  for (int i = 0; i < plan.num_seqs(); i++) {
    const Slot& slot = slots[plan.slots[i]];
    const int begin = plan.cu_query_lens[i], end = plan.cu_query_lens[i + 1], num_drafts = plan.num_drafts_of(i);
    tokens.assign(plan.token_ids.data + begin, plan.token_ids.data + end);
    for (int32_t& token : tokens) {
      if (token == kNewestToken) token = slot.newest_token;
      if (token <= kFirstDraft) token = proposals[i].tokens[kFirstDraft - token];
    }
    PassSequence& seq =
        add(slot, slot.length, tokens.data(), static_cast<int>(tokens.size()), plan.cu_blocks[i], block_size);
    seq.drafts.assign(tokens.end() - num_drafts, tokens.end());
    seq.first_sampled -= num_drafts;
    seq.proposal = &proposals[i];
  }
  plan.each_logit_row([&](int i, int row, int seq, LogitRowKind kind) {
    const int32_t target = plan.logit_row_targets.size > 0 ? plan.logit_row_targets[i] : -1;
    add_row({row, seq, kind, target});
  });
}

}  // namespace nds
