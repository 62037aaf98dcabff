// One step on the CPU: drafts, one pass of the model, what slots remember after.
#include <algorithm>
#include <utility>

#include "comm/agreement.h"
#include "core/error.h"
#include "core/plan/step_hash.h"
#include "core/steady_clock.h"
#include "cpu/cpu_backend.h"

namespace nds::cpu {

StepResult CpuBackend::collect() {
  if (!result_) throw Error("ERR_INTERNAL", "Expected a step in flight to collect");
  StepResult result = std::move(*result_);
  result_.reset();
  return result;
}

StepResult CpuBackend::run(const PlanView& plan) {
  const double start = steady_seconds();
  const ProgramSpec* draft_program = draft_ == nullptr ? nullptr : &draft_->program();
  admit_and_check(plan, model_->program(), draft_program, slots_);
  comm_->set_step(plan.step);
  StepResult result;
  draft(plan, result);
  const double draft_end = steady_seconds();
  fill_pass(plan);
  model_->run(pass_, result);
  commit(plan, result);
  result.plan_hash = plan.hash;
  result.output_hash = hash_output(result);
  const double agreement_start = options_.trace ? steady_seconds() : 0;
  comm::check_agreement(*comm_, plan.step, result.plan_hash, result.output_hash);
  if (options_.trace && options_.world_size > 1) model_->trace_event(kAgreement, agreement_start, result);
  model_->count_exchange(result);
  result.start_seconds = start;
  result.end_seconds = steady_seconds();
  result.execute_seconds = result.end_seconds - start;
  result.draft_seconds = draft_end - start;
  return result;
}

void CpuBackend::fill_pass(const PlanView& plan) {
  const int block_size = model_->program().kv.block_size;
  pass_.clear(plan.step, false, plan.block_tables.data);
  pass_.block_copies = plan.block_copies;
  pass_.rule = draft_rule_;
  std::vector<int32_t> tokens;
  for (int i = 0; i < plan.num_seqs(); i++) {
    const Slot& slot = slots_[plan.slots[i]];
    const int begin = plan.cu_query_lens[i], end = plan.cu_query_lens[i + 1], num_drafts = plan.num_drafts_of(i);
    tokens.assign(plan.token_ids.data + begin, plan.token_ids.data + end);
    for (size_t j = 0; j < tokens.size(); j++) {
      if (tokens[j] == kNewestToken) tokens[j] = slot.newest_token;
      if (tokens[j] <= kFirstDraft) tokens[j] = proposals_[i].tokens[kFirstDraft - tokens[j]];
    }
    PassSequence& seq =
        pass_.add(slot, slot.length, tokens.data(), static_cast<int>(tokens.size()), plan.cu_blocks[i], block_size);
    seq.drafts.assign(tokens.end() - num_drafts, tokens.end());
    seq.first_sampled -= num_drafts;
    seq.proposal = &proposals_[i];
  }
  int seq = 0;
  for (int64_t i = 0; i < plan.logit_rows.size; i++) {
    const int32_t row = plan.logit_rows[i];
    while (row >= plan.cu_query_lens[seq + 1]) seq++;
    const int32_t target = plan.logit_row_targets.size > 0 ? plan.logit_row_targets[i] : -1;
    pass_.rows.push_back({row, seq, static_cast<LogitRowKind>(plan.logit_row_kinds[i]), target});
  }
}

void CpuBackend::commit(const PlanView& plan, StepResult& result) {
  std::vector<const LogitRow*> first_samples(plan.num_seqs(), nullptr);
  for (const LogitRow& row : pass_.rows) {
    if (row.kind == LogitRowKind::sample && first_samples[row.seq] == nullptr) first_samples[row.seq] = &row;
  }
  for (int i = 0; i < plan.num_seqs(); i++)
    commit_sequence(slots_[plan.slots[i]], pass_.seqs[i], first_samples[i], result);
}

// Keeps the accepted drafts and one token more. What the caches hold of rejected drafts is written over: only lengths
// move.
void CpuBackend::commit_sequence(Slot& slot, const PassSequence& seq, const LogitRow* first_sample,
                                 StepResult& result) {
  const int num_rejected = static_cast<int>(seq.drafts.size()) - seq.num_accepted;
  slot.length += seq.num_rows - num_rejected;
  slot.newest_token = -1;
  slot.has_uncertain_length |= !seq.drafts.empty();
  if (first_sample == nullptr) {
    result.num_tokens.push_back(0);
    return;
  }
  for (int j = 0; j <= seq.num_accepted; j++) {
    slot.append(first_sample[j].sampled);
    result.token_ids.push_back(first_sample[j].sampled);
  }
  result.num_tokens.push_back(seq.num_accepted + 1);
  // The draft may have taken in tokens that were rejected after the newest one that it shares with the text.
  slot.draft_length = std::min(slot.draft_length, slot.length);
}

}  // namespace nds::cpu
