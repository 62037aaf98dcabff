// The last operator of a step: a token for every row to sample, and the rows that were asked for.
#include <algorithm>
#include <string>

#include "core/error.h"
#include "cpu/cpu_backend.h"

namespace nds::cpu {
namespace {

// Ties go to the lowest id, which comes first: ranks and threads hold ascending ids.
void keep_better(Candidate& best, const Candidate& other) {
  if (other.id >= 0 && (best.id < 0 || other.value > best.value)) best = other;
}

}  // namespace

bool CpuBackend::is_sampled(int logit_row) const {
  return step_.plan->logit_row_kinds[logit_row] == static_cast<int32_t>(LogitRowKind::sample);
}

SampleParams CpuBackend::sample_params(int logit_row) const {
  const Slot& slot = slots_[step_.plan->slots[step_.row_seq[logit_row]]];
  const SlotParams& p = slot.params;
  const uint32_t position = static_cast<uint32_t>(step_.positions[step_.plan->logit_rows[logit_row]]) + 1;
  return {p.temperature, p.top_p, p.min_p, p.top_k, p.seed, position, p.sample_index};
}

void CpuBackend::sample(const OpSpec& op, int tid) {
  sample_local(op, tid);
  pool_.barrier();
  on_first_thread(tid, [&] { sample_exchange(op); });
}

// Each thread takes the best of its share of this rank's ids, for every row without filters.
void CpuBackend::sample_local(const OpSpec& op, int tid) {
  const Matrix logits = value(op.x);
  const int num_ids = std::max(0, std::min(op.num_token_ids, program_.sample_vocab_size - op.first_token_id));
  // Shares begin at multiples of 64 ids: whole cache lines and whole blocks of random numbers.
  const int share = (num_ids + num_threads() * 64 - 1) / (num_threads() * 64) * 64;
  const int begin = std::min(num_ids, tid * share), end = std::min(num_ids, begin + share);
  for (int row = 0; row < logits.rows; row++) {
    if (!is_sampled(row) || slots_[step_.plan->slots[step_.row_seq[row]]].params.filtered()) continue;
    candidates_[row * num_threads() + tid] = kernels_.sample_row(logits.f32() + row * logits.ld + begin, end - begin,
                                                                 op.first_token_id + begin, sample_params(row));
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
    if (!is_sampled(row)) {
      const float* logits = gather_logits(op, row, program_.vocab_size);
      step_.result->logits.insert(step_.result->logits.end(), logits, logits + program_.vocab_size);
      continue;
    }
    Candidate best{0, -1};
    if (slots_[step_.plan->slots[step_.row_seq[row]]].params.filtered()) {
      const float* logits = gather_logits(op, row, program_.sample_vocab_size);
      best =
          kernels_.sample_filtered_row(logits, program_.sample_vocab_size, sample_params(row), filter_scratch_.data());
    } else {
      for (int r = 0; r < options_.world_size; r++) keep_better(best, all[r * num_rows + row]);
    }
    if (best.id < 0) {
      throw Error("ERR_CHECKPOINT",
                  "Expected logits that are numbers for sequence " + std::to_string(step_.row_seq[row]) + " of plan " +
                      std::to_string(step_.plan->step) + " but received none: the weights hold infinities or overflow");
    }
    step_.sampled[row] = best.id;
  }
}

// One row [limit] of logits from all ranks: ids below `limit`, ascending.
const float* CpuBackend::gather_logits(const OpSpec& op, int logit_row, int limit) {
  const Matrix logits = value(op.x);
  const float* row = logits.f32() + logit_row * logits.ld;
  if (options_.world_size == 1) return row;
  std::vector<int64_t> counts;
  int remaining = limit;
  for (const int32_t num_ids : head_num_ids_) {
    const int taken = std::min(remaining, num_ids);
    counts.push_back(int64_t{taken} * 4);
    remaining -= taken;
  }
  comm_->all_gather(row, counts.data(), full_row_.data());
  return full_row_.data();
}

}  // namespace nds::cpu
