// The last operator of a pass: a token for every row to sample, and the rows that were asked for.
#include <algorithm>
#include <string>

#include "core/error.h"
#include "cpu/cpu_model.h"
#include "step/process_logits.h"

namespace nds::cpu {
namespace {

// Ties go to the lowest id, which comes first: ranks and threads hold ascending ids.
void keep_better(Candidate& best, const Candidate& other) {
  if (other.id >= 0 && (best.id < 0 || other.value > best.value)) best = other;
}

}  // namespace

SampleParams CpuModel::sample_params(const LogitRow& row) const {
  const SlotParams& p = params_of(row);
  if (pass_->is_greedy) return {0, 1, 0, 0, 0, 0, 0};
  const uint32_t position = static_cast<uint32_t>(pass_->positions[row.row]) + 1;
  return {p.temperature, p.top_p, p.min_p, p.top_k, p.seed, position, p.sample_index};
}

Span<int32_t> CpuModel::drafts_before(const LogitRow& row) const {
  const PassSequence& seq = pass_->seqs[row.seq];
  return {seq.drafts.data(), std::max(0, row.row - seq.first_sampled)};
}

float* CpuModel::row_to_sample(const OpSpec& op, int logit_row) const {
  const Matrix logits = value(op.x);
  float* const first = pass_->rows[logit_row].edited ? reinterpret_cast<float*>(edited_.data()) : logits.f32();
  return first + logit_row * logits.ld;
}

void CpuModel::sample(const OpSpec& op, int tid) {
  sample_local(op, tid);
  pool_.barrier();
  on_first_thread(tid, [&] {
    sample_exchange(op);
    if (pass_->is_draft) {
      propose(op);
    } else {
      accept_coupled();
      accept_judged(op);
    }
    if (reports_logprobs_) place_logprobs();
  });
  if (!reports_logprobs_) return;
  pool_.barrier();
  if (failed_op_ == kNoOp) log_probabilities(op, tid);
}

// Each thread edits its share of this rank's ids where parameters say so, and takes the best of it for every row
// without filters.
void CpuModel::sample_local(const OpSpec& op, int tid) {
  const Matrix logits = value(op.x);
  const int num_ids = std::max(0, std::min(op.num_token_ids, program_.sample_vocab_size - op.first_token_id));
  // Shares begin at multiples of 64 ids: whole cache lines and whole blocks of random numbers.
  const int share = (num_ids + num_threads() * 64 - 1) / (num_threads() * 64) * 64;
  const int begin = std::min(num_ids, tid * share), end = std::min(num_ids, begin + share);
  const int first_id = op.first_token_id + begin;
  for (int i = 0; i < logits.rows; i++) {
    const LogitRow& row = pass_->rows[i];
    if (row.kind != LogitRowKind::sample) continue;
    const Slot& slot = *pass_->seqs[row.seq].slot;
    float* const to_sample = row_to_sample(op, i) + begin;
    if (row.edited) {
      process_logits(logits.f32() + i * logits.ld + begin, first_id, end - begin, slot, drafts_before(row),
                     num_output_at(row), to_sample);
    }
    if (is_filtered(row) || is_judged(row)) continue;
    candidates_[i * num_threads() + tid] = kernels_.sample_row(to_sample, end - begin, first_id, sample_params(row));
  }
}

void CpuModel::sample_exchange(const OpSpec& op) {
  const int num_rows = pass_->num_logit_rows();
  for (int row = 0; row < num_rows; row++) {
    Candidate best = candidates_[row * num_threads()];
    for (int t = 1; t < num_threads(); t++) keep_better(best, candidates_[row * num_threads() + t]);
    candidates_[row] = best;
  }
  const Candidate* all = candidates_.data();
  if (place_.world_size > 1) {
    const std::vector<int64_t> counts(place_.world_size, int64_t{num_rows} * static_cast<int64_t>(sizeof(Candidate)));
    comm_.all_gather(candidates_.data(), counts.data(), all_candidates_.data());
    all = all_candidates_.data();
  }
  for (int i = 0; i < num_rows; i++) {
    LogitRow& row = pass_->rows[i];
    if (row.kind == LogitRowKind::give_back) {
      const float* logits = gather_row(row_to_sample(op, i), program_.vocab_size);
      result_->logits.insert(result_->logits.end(), logits, logits + program_.vocab_size);
    }
    if (row.kind != LogitRowKind::sample || is_judged(row)) continue;
    Candidate best{0, -1};
    if (is_filtered(row)) {
      best = sample_whole_row(op, i);
    } else {
      for (int r = 0; r < place_.world_size; r++) keep_better(best, all[r * num_rows + i]);
    }
    if (best.id < 0) {
      const char* const reason = row.edited ? "its bans leave none, or " : "";
      throw Error("ERR_CHECKPOINT", "Expected logits that are numbers for sequence " + std::to_string(row.seq) +
                                        " of plan " + std::to_string(pass_->step) + " but received none: " + reason +
                                        "the weights hold infinities or overflow");
    }
    row.sampled = best.id;
  }
}

Candidate CpuModel::sample_whole_row(const OpSpec& op, int logit_row) {
  const float* logits = gather_row(row_to_sample(op, logit_row), program_.sample_vocab_size);
  return kernels_.sample_filtered_row(logits, program_.sample_vocab_size, sample_params(pass_->rows[logit_row]),
                                      filter_scratch_.data());
}

const float* CpuModel::gather_row(const float* local, int limit) {
  if (place_.world_size == 1) return local;
  std::vector<int64_t> counts;
  int remaining = limit;
  for (const int32_t num_ids : layout_.num_ids) {
    const int taken = std::min(remaining, num_ids);
    counts.push_back(int64_t{taken} * 4);
    remaining -= taken;
  }
  comm_.all_gather(local, counts.data(), full_row_.data());
  return full_row_.data();
}

// Rows whose token stays report; only rank 0's result is read.
void CpuModel::place_logprobs() {
  int64_t num_entries = 0;
  for (int i = 0; i < pass_->num_logit_rows(); i++) {
    const LogitRow& row = pass_->rows[i];
    const int num_likeliest = num_logprobs_of(row);
    if (num_likeliest < 0 || drafts_before(row).size > pass_->seqs[row.seq].num_accepted) continue;
    const int32_t token = row.kind == LogitRowKind::sample ? row.sampled : row.target;
    pass_->logprob_rows.push_back({i, token, num_likeliest, num_entries});
    num_entries += 1 + num_likeliest;
  }
  if (place_.rank != 0) return;
  result_->logprob_ids.resize(num_entries);
  result_->logprobs.resize(num_entries);
  result_->logprob_ranks.resize(pass_->logprob_rows.size());
}

}  // namespace nds::cpu
