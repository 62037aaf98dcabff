// Log-probabilities of the raw logits of a step: of sampled tokens, and of prompt tokens.
#include "cpu/cpu_model.h"

namespace nds::cpu {

// On all threads. One rank has whole rows, which its threads share; else rank 0 gathers them one by one.
void CpuModel::log_probabilities(const OpSpec& op, int tid) {
  const Matrix logits = value(op.x);
  const size_t num_rows = pass_->logprob_rows.size();
  if (place_.world_size == 1) {
    for (size_t i = tid; i < num_rows; i += num_threads()) {
      const LogprobRow& row = pass_->logprob_rows[i];
      log_probabilities_of(row, logits.f32() + row.logit_row * logits.ld);
    }
    return;
  }
  on_first_thread(tid, [&] {
    for (const LogprobRow& row : pass_->logprob_rows) {
      const float* whole = gather_row(logits.f32() + row.logit_row * logits.ld, program_.vocab_size);
      if (place_.rank == 0) log_probabilities_of(row, whole);
    }
  });
}

// Of a whole row [vocab_size].
void CpuModel::log_probabilities_of(const LogprobRow& row, const float* logits) {
  result_->logprob_ranks[&row - pass_->logprob_rows.data()] =
      kernels_.log_probabilities({logits, program_.vocab_size, program_.sample_vocab_size, row.token, row.num_likeliest,
                                  result_->logprob_ids.data() + row.offset, result_->logprobs.data() + row.offset});
}

}  // namespace nds::cpu
