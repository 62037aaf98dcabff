// The draft's part of a step: it takes in what it has not seen, then proposes token by token, without a word from
// outside.
#include <algorithm>
#include <vector>

#include "cpu/cpu_backend.h"

namespace nds::cpu {

void CpuBackend::draft(const PlanView& plan, StepResult& result) {
  proposals_.resize(std::max(proposals_.size(), static_cast<size_t>(plan.num_seqs())));
  for (Proposal& proposal : proposals_) {
    proposal.tokens.clear();
    proposal.distributions.clear();
  }
  if (plan.draft_lens.size == 0) return;
  catch_up(plan, result);
  extend_drafts(plan, result);
}

void CpuBackend::start_draft_pass(const PlanView& plan) {
  draft_pass_.clear(plan.step, true, plan.draft_block_tables.data);
  draft_pass_.is_greedy = greedy_draft_;
  draft_pass_.rule = draft_rule_;
}

// One pass over all tokens that the draft has not seen, for each sequence at most as many as the plan allows. Where
// they are all, and drafts are wanted, it ends with the first of them.
void CpuBackend::catch_up(const PlanView& plan, StepResult& result) {
  const int block_size = draft_->program().kv.block_size;
  start_draft_pass(plan);
  std::vector<int32_t> tokens;
  for (int i = 0; i < plan.num_seqs(); i++) {
    Slot& slot = slots_[plan.slots[i]];
    const int num_tokens = plan.draft_catch_up(i, slot);
    if (num_tokens == 0) continue;
    const auto first = slot.history.begin() + slot.draft_length;
    tokens.assign(first, first + num_tokens);
    // A prompt may hold padding of the model's vocabulary, for which the draft has no row: any one does, on every rank.
    for (int32_t& token : tokens) token = token < draft_->program().vocab_size ? token : 0;
    PassSequence& seq =
        draft_pass_.add(slot, slot.draft_length, tokens.data(), num_tokens, plan.draft_cu_blocks[i], block_size);
    seq.proposal = &proposals_[i];
    slot.draft_length += num_tokens;
    if (plan.wants_draft(i)) draft_pass_.rows.push_back({seq.first_sampled, draft_pass_.num_seqs() - 1});
  }
  if (draft_pass_.num_seqs() > 0) draft_->run(draft_pass_, result);
}

// Pass j takes draft j - 1 of every sequence that wants one more, and gives draft j.
void CpuBackend::extend_drafts(const PlanView& plan, StepResult& result) {
  const int block_size = draft_->program().kv.block_size;
  for (int j = 1;; j++) {
    start_draft_pass(plan);
    for (int i = 0; i < plan.num_seqs(); i++) {
      if (!plan.wants_draft(i) || plan.num_drafts_of(i) <= j) continue;
      Slot& slot = slots_[plan.slots[i]];
      Proposal& proposal = proposals_[i];
      PassSequence& seq =
          draft_pass_.add(slot, slot.draft_length, &proposal.tokens.back(), 1, plan.draft_cu_blocks[i], block_size);
      slot.draft_length++;
      seq.proposal = &proposal;
      seq.drafts = proposal.tokens;
      seq.first_sampled = seq.begin - j;
      draft_pass_.rows.push_back({seq.begin, draft_pass_.num_seqs() - 1});
    }
    if (draft_pass_.num_seqs() == 0) return;
    draft_->run(draft_pass_, result);
  }
}

}  // namespace nds::cpu
