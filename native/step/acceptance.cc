// Decides which drafts of a pass are accepted and which rows report log-probabilities.
#include "step/acceptance.h"

namespace nds {
namespace {

static_assert(kMaxPlanDrafts <= kMaxDrafts, "the rules have room for every plan's drafts");

// Accepts by the distributions of draft and target: the K + 1 rows from first_row on get the accepted drafts and the
// token after them.
void accept_judged(Pass& pass, int first_row, DeviceModel& model) {
  const Accepted accepted = model.judge(pass, first_row);
  PassSequence& seq = pass.seqs[pass.rows[first_row].seq];
  seq.num_accepted = accepted.num_accepted;
  for (int j = 0; j < accepted.num_accepted; j++) pass.rows[first_row + j].sampled = seq.drafts[j];
  pass.rows[first_row + accepted.num_accepted].sampled = accepted.token;
}

}  // namespace

void accept_drafts(Pass& pass, DeviceModel& model) {
  for (int i = 0; i < pass.num_logit_rows(); i++) {
    const LogitRow& row = pass.rows[i];
    if (row.kind != LogitRowKind::sample) continue;
    PassSequence& seq = pass.seqs[row.seq];
    const int num_drafts = static_cast<int>(seq.drafts.size());
    if (pass.is_judged(row)) {
      accept_judged(pass, i, model);
      i += num_drafts;
      continue;
    }
    // Rule `coupled`: draft and target take the arg-max with the same noise, so a draft is accepted if the target's
    // token equals it. The sampling rows of a sequence are adjacent, one after each draft.
    const int num_before = static_cast<int>(pass.drafts_before(row).size);
    const bool is_reached = num_before == seq.num_accepted, has_next = num_before < num_drafts;
    if (is_reached && has_next && row.sampled == seq.drafts[num_before]) seq.num_accepted++;
  }
}

void place_logprobs(Pass& pass, bool is_reported, StepResult& result) {
  int64_t num_entries = 0;
  for (int i = 0; i < pass.num_logit_rows(); i++) {
    const LogitRow& row = pass.rows[i];
    const int num_likeliest = num_likeliest_of(row.kind, pass.params_of(row));
    if (num_likeliest < 0 || pass.drafts_before(row).size > pass.seqs[row.seq].num_accepted) continue;
    const int32_t token = row.kind == LogitRowKind::sample ? row.sampled : row.target;
    pass.logprob_rows.push_back({i, token, num_likeliest, num_entries});
    num_entries += 1 + num_likeliest;
  }
  if (!is_reported) return;
  result.logprob_ids.resize(num_entries);
  result.logprobs.resize(num_entries);
  result.logprob_ranks.resize(pass.logprob_rows.size());
}

}  // namespace nds
