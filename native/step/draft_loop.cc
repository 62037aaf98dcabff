// The draft's part of a step: catch up, then propose.
#include "step/draft_loop.h"

#include <algorithm>

namespace nds {

void clear_proposals(int num_seqs, std::vector<Proposal>& proposals) {
  proposals.resize(std::max(proposals.size(), static_cast<size_t>(num_seqs)));
  for (Proposal& proposal : proposals) {
    proposal.tokens.clear();
    proposal.distributions.clear();
  }
}

void DraftLoop::run(const PlanView& plan, SlotTable& slots, std::vector<Proposal>& proposals, StepResult& result) {
  catch_up(plan, slots, proposals, result);
  extend(plan, slots, proposals, result);
}

void DraftLoop::start_pass(const PlanView& plan) {
  pass_.clear(plan.step, true, plan.draft_block_tables.data);
  pass_.is_greedy = is_greedy_;
  pass_.rule = rule_;
}

void DraftLoop::run_pass(StepResult& result) {
  draft_.run(pass_, result);
  for (const LogitRow& row : pass_.rows) pass_.seqs[row.seq].proposal->tokens.push_back(row.sampled);
}

// One pass over the tokens that the draft has not seen, at most draft_lens[i] of sequence i. For a sequence that wants
// drafts these are all of them, and the pass yields its first draft.
void DraftLoop::catch_up(const PlanView& plan, SlotTable& slots, std::vector<Proposal>& proposals, StepResult& result) {
  const ProgramSpec& program = draft_.program();
  start_pass(plan);
  std::vector<int32_t> tokens;
  for (int i = 0; i < plan.num_seqs(); i++) {
    Slot& slot = slots[plan.slots[i]];
    const int num_tokens = plan.draft_catch_up(i, slot);
    if (num_tokens == 0) continue;
    const auto first = slot.history.begin() + slot.draft_length;
    tokens.assign(first, first + num_tokens);
    // A prompt may hold padding ids of the model's vocabulary, for which the draft has no row. Any id serves, if it is
    // the same on every rank.
    for (int32_t& token : tokens) token = token < program.vocab_size ? token : 0;
    PassSequence& seq =
        pass_.add(slot, slot.draft_length, tokens.data(), num_tokens, plan.draft_cu_blocks[i], program.kv.block_size);
    seq.proposal = &proposals[i];
    slot.draft_length += num_tokens;
    if (plan.wants_draft(i)) pass_.add_row({seq.first_sampled, pass_.num_seqs() - 1});
  }
  if (pass_.num_seqs() > 0) run_pass(result);
}

// Pass j yields draft j from draft j - 1, for every sequence that wants more than j drafts.
void DraftLoop::extend(const PlanView& plan, SlotTable& slots, std::vector<Proposal>& proposals, StepResult& result) {
  for (int j = 1;; j++) {
    start_pass(plan);
    for (int i = 0; i < plan.num_seqs(); i++) {
      if (!plan.wants_draft(i) || plan.num_drafts_of(i) <= j) continue;
      Slot& slot = slots[plan.slots[i]];
      Proposal& proposal = proposals[i];
      PassSequence& seq = pass_.add(slot, slot.draft_length, &proposal.tokens.back(), 1, plan.draft_cu_blocks[i],
                                    draft_.program().kv.block_size);
      slot.draft_length++;
      seq.proposal = &proposal;
      seq.drafts = proposal.tokens;
      seq.first_sampled = seq.begin - j;
      pass_.add_row({seq.begin, pass_.num_seqs() - 1});
    }
    if (pass_.num_seqs() == 0) return;
    run_pass(result);
  }
}

}  // namespace nds
