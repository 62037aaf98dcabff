// Commits a step's tokens to the slots.
#include "step/commit.h"

#include <algorithm>

namespace nds {
namespace {

// Only lengths change: the KV of rejected drafts is overwritten later.
void commit_sequence(const PassSequence& seq, const LogitRow* first_sample, Slot& slot, StepResult& result) {
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
  // Clips the draft's length: its cache may end in drafts that were rejected.
  slot.draft_length = std::min(slot.draft_length, slot.length);
}

}  // namespace

void commit(const PlanView& plan, const Pass& pass, SlotTable& slots, StepResult& result) {
  std::vector<const LogitRow*> first_samples(plan.num_seqs(), nullptr);
  for (const LogitRow& row : pass.rows) {
    if (row.kind == LogitRowKind::sample && first_samples[row.seq] == nullptr) first_samples[row.seq] = &row;
  }
  for (int i = 0; i < plan.num_seqs(); i++)
    commit_sequence(pass.seqs[i], first_samples[i], slots[plan.slots[i]], result);
}

}  // namespace nds
