// Which drafts stay. Every rank decides by the same numbers.
#include "core/error.h"
#include "cpu/cpu_model.h"

namespace nds::cpu {

static_assert(kMaxPlanDrafts <= kMaxDrafts, "the rules have room for every plan's drafts");

bool CpuModel::is_judged(const LogitRow& row) const {
  if (pass_->rule == DraftRule::coupled || row.kind != LogitRowKind::sample) return false;
  return pass_->is_draft ? !pass_->is_greedy : !pass_->seqs[row.seq].drafts.empty();
}

KeptDistribution CpuModel::distribution_of(const OpSpec& op, int logit_row) {
  const int n = program_.sample_vocab_size;
  const float* logits = gather_row(row_to_sample(op, logit_row), n);
  KeptDistribution kept;
  kept.ids.resize(n);
  kept.masses.resize(n);
  const Distribution found = kernels_.distribution(logits, n, sample_params(pass_->rows[logit_row]),
                                                   filter_scratch_.data(), kept.ids.data(), kept.masses.data());
  if (found.n == 0) throw Error("ERR_CHECKPOINT", "Expected logits that are numbers but received none");
  kept.ids.resize(found.n);
  kept.masses.resize(found.n);
  kept.total = found.total;
  return kept;
}

// Each row's token has been drawn, or is drawn here from what the rule will judge it by.
void CpuModel::propose(const OpSpec& op) {
  for (int i = 0; i < pass_->num_logit_rows(); i++) {
    LogitRow& row = pass_->rows[i];
    Proposal& proposal = *pass_->seqs[row.seq].proposal;
    if (is_judged(row)) {
      KeptDistribution q = distribution_of(op, i);
      SampleParams address = sample_params(row);
      address.stream = NoiseStream::draft;
      address.round = address.position - static_cast<uint32_t>(proposal.tokens.size());
      row.sampled = kernels_.draw(q.view(), address);
      proposal.distributions.push_back(std::move(q));
    }
    proposal.tokens.push_back(row.sampled);
  }
}

// Draft and target take the arg-max with the same noise, so a draft stays while it is the token that the target takes
// there. Rows that sample lie side by side, one after each draft.
void CpuModel::accept_coupled() {
  for (const LogitRow& row : pass_->rows) {
    if (row.kind != LogitRowKind::sample || is_judged(row)) continue;
    PassSequence& seq = pass_->seqs[row.seq];
    const int num_before = static_cast<int>(drafts_before(row).size);
    const bool is_reached = num_before == seq.num_accepted, has_next = num_before < static_cast<int>(seq.drafts.size());
    if (is_reached && has_next && row.sampled == seq.drafts[num_before]) seq.num_accepted++;
  }
}

// By the distributions of draft and target, K + 1 rows at a time.
void CpuModel::accept_judged(const OpSpec& op) {
  for (int i = 0; i < pass_->num_logit_rows(); i++) {
    const LogitRow& first = pass_->rows[i];
    if (!is_judged(first)) continue;
    PassSequence& seq = pass_->seqs[first.seq];
    const int num_drafts = static_cast<int>(seq.drafts.size());
    std::vector<KeptDistribution> kept;
    std::vector<Distribution> p, q;
    for (int j = 0; j <= num_drafts; j++) kept.push_back(distribution_of(op, i + j));
    for (const KeptDistribution& distribution : kept) p.push_back(distribution.view());
    for (int j = 0; j < num_drafts; j++) {
      const bool was_drawn = seq.proposal != nullptr && !seq.proposal->distributions.empty();
      // One id with all the mass where nothing was drawn.
      q.push_back(was_drawn ? seq.proposal->distributions[j].view()
                            : Distribution{&seq.drafts[j], &kOneMass, 1, kOneMass});
    }
    const AcceptRule rule = pass_->rule == DraftRule::block ? AcceptRule::block : AcceptRule::standard;
    const SampleParams params = sample_params(first);
    const Accepted accepted =
        kernels_.accept_drafts({rule, num_drafts, seq.drafts.data(), q.data(), p.data(), params.seed, params.position,
                                params.sample_index, params.position});
    seq.num_accepted = accepted.num_accepted;
    for (int j = 0; j < accepted.num_accepted; j++) pass_->rows[i + j].sampled = seq.drafts[j];
    pass_->rows[i + accepted.num_accepted].sampled = accepted.token;
    i += num_drafts;
  }
}

}  // namespace nds::cpu
