// What a step produced. The addon lays it out as protocol/step-result.ts has it.
#pragma once
#include <cstdint>
#include <vector>

#include "core/plan/step_trace.h"

namespace nds {

struct StepResult {
  std::vector<int32_t> num_tokens;  // [num_seqs]
  std::vector<int32_t> token_ids;
  std::vector<float> logits;  // [num_return_rows, vocab_size]
  // On the clock of steady_clock, which all processes of a host share.
  double start_seconds = 0, end_seconds = 0;
  // Of rank 0 alone. Of each row with log-probabilities the token drawn or asked for, then the likeliest.
  std::vector<int32_t> logprob_ids;
  std::vector<float> logprobs;
  std::vector<int32_t> logprob_ranks;  // [number of such rows] place of the first token among all, from 1
  double execute_seconds = 0;
  double wait_seconds = 0;
  double exchanged_bytes = 0;
  double all_reduce_bytes = 0;
  double draft_seconds = 0;  // of execute_seconds, those before the model's own pass
  uint64_t plan_hash = 0;    // of the step's number and the plan's bytes
  uint64_t output_hash = 0;  // of counts, tokens and logits
  StepTrace trace;           // empty unless BackendOptions::trace
};

}  // namespace nds
