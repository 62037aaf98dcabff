// The last operator of a step: a token for every row to sample, and the rows that were asked for.
#include <algorithm>
#include <string>

#include "core/error.h"
#include "cpu/cpu_backend.h"
#include "cpu/process_logits.h"

namespace nds::cpu {
namespace {

// Ties go to the lowest id, which comes first: ranks and threads hold ascending ids.
void keep_better(Candidate& best, const Candidate& other) {
  if (other.id >= 0 && (best.id < 0 || other.value > best.value)) best = other;
}

}  // namespace

int CpuBackend::num_output_at(int logit_row) const {
  return step_.positions[step_.plan->logit_rows[logit_row]] + 1 - slot_of(logit_row).params.num_prompt_tokens;
}

SampleParams CpuBackend::sample_params(int logit_row) const {
  const SlotParams& p = slot_of(logit_row).params;
  const uint32_t position = static_cast<uint32_t>(step_.positions[step_.plan->logit_rows[logit_row]]) + 1;
  return {p.temperature, p.top_p, p.min_p, p.top_k, p.seed, position, p.sample_index};
}

float* CpuBackend::row_to_sample(const OpSpec& op, int logit_row) const {
  const Matrix logits = value(op.x);
  float* const first = step_.edited[logit_row] ? reinterpret_cast<float*>(edited_.data()) : logits.f32();
  return first + logit_row * logits.ld;
}

void CpuBackend::sample(const OpSpec& op, int tid) {
  sample_local(op, tid);
  pool_.barrier();
  on_first_thread(tid, [&] { sample_exchange(op); });
  if (step_.logprob_rows.empty()) return;
  pool_.barrier();
  if (failed_op_ == kNoOp) log_probabilities(op, tid);
}

// Each thread edits its share of this rank's ids where parameters say so, and takes the best of it for every row
// without filters.
void CpuBackend::sample_local(const OpSpec& op, int tid) {
  const Matrix logits = value(op.x);
  const int num_ids = std::max(0, std::min(op.num_token_ids, program_.sample_vocab_size - op.first_token_id));
  // Shares begin at multiples of 64 ids: whole cache lines and whole blocks of random numbers.
  const int share = (num_ids + num_threads() * 64 - 1) / (num_threads() * 64) * 64;
  const int begin = std::min(num_ids, tid * share), end = std::min(num_ids, begin + share);
  const int first_id = op.first_token_id + begin;
  for (int row = 0; row < logits.rows; row++) {
    if (kind_of(row) != LogitRowKind::sample) continue;
    const Slot& slot = slot_of(row);
    float* const to_sample = row_to_sample(op, row) + begin;
    if (step_.edited[row]) {
      process_logits(logits.f32() + row * logits.ld + begin, first_id, end - begin, slot, num_output_at(row),
                     to_sample);
    }
    if (slot.params.filtered()) continue;
    candidates_[row * num_threads() + tid] = kernels_.sample_row(to_sample, end - begin, first_id, sample_params(row));
  }
}

void CpuBackend::sample_exchange(const OpSpec& op) {
  const int num_rows = static_cast<int>(step_.plan->logit_rows.size);
  for (int row = 0; row < num_rows; row++) {
    Candidate best = candidates_[row * num_threads()];
    for (int t = 1; t < num_threads(); t++) keep_better(best, candidates_[row * num_threads() + t]);
    candidates_[row] = best;
  }
  const Candidate* all = candidates_.data();
  if (options_.world_size > 1) {
    const std::vector<int64_t> counts(options_.world_size, int64_t{num_rows} * static_cast<int64_t>(sizeof(Candidate)));
    comm_->all_gather(candidates_.data(), counts.data(), all_candidates_.data());
    all = all_candidates_.data();
  }
  for (int row = 0; row < num_rows; row++) {
    if (kind_of(row) == LogitRowKind::give_back) {
      const float* logits = gather_row(row_to_sample(op, row), program_.vocab_size);
      step_.result->logits.insert(step_.result->logits.end(), logits, logits + program_.vocab_size);
    }
    if (kind_of(row) != LogitRowKind::sample) continue;
    Candidate best{0, -1};
    if (slot_of(row).params.filtered()) {
      best = sample_whole_row(op, row);
    } else {
      for (int r = 0; r < options_.world_size; r++) keep_better(best, all[r * num_rows + row]);
    }
    if (best.id < 0) {
      const char* const reason = step_.edited[row] ? "its bans leave none, or " : "";
      throw Error("ERR_CHECKPOINT", "Expected logits that are numbers for sequence " +
                                        std::to_string(step_.row_seq[row]) + " of plan " +
                                        std::to_string(step_.plan->step) + " but received none: " + reason +
                                        "the weights hold infinities or overflow");
    }
    step_.sampled[row] = best.id;
  }
}

Candidate CpuBackend::sample_whole_row(const OpSpec& op, int logit_row) {
  const float* logits = gather_row(row_to_sample(op, logit_row), program_.sample_vocab_size);
  return kernels_.sample_filtered_row(logits, program_.sample_vocab_size, sample_params(logit_row),
                                      filter_scratch_.data());
}

const float* CpuBackend::gather_row(const float* local, int limit) {
  if (options_.world_size == 1) return local;
  std::vector<int64_t> counts;
  int remaining = limit;
  for (const int32_t num_ids : head_num_ids_) {
    const int taken = std::min(remaining, num_ids);
    counts.push_back(int64_t{taken} * 4);
    remaining -= taken;
  }
  comm_->all_gather(local, counts.data(), full_row_.data());
  return full_row_.data();
}

}  // namespace nds::cpu
