// The result of a step. The addon lays it out in the sections of protocol/step-result.ts.
#pragma once
#include <cstdint>
#include <vector>

#include "core/plan/step_trace.h"

namespace nds {

struct StepResult {
  std::vector<int32_t> num_tokens;  // [num_seqs]
  std::vector<int32_t> token_ids;
  std::vector<float> logits;  // [num_return_rows, vocab_size]
  std::vector<float> hidden;  // [num_hidden_rows, hidden_size]
  // Times of steady_seconds(), one clock for all processes of a host.
  double start_seconds = 0, end_seconds = 0;
  // On rank 0 only. Per row with log-probabilities: the token drawn or asked for, then the likeliest.
  std::vector<int32_t> logprob_ids;
  std::vector<float> logprobs;
  std::vector<int32_t> logprob_ranks;  // [number of such rows] rank of the first token by likelihood, from 1
  double execute_seconds = 0;
  double wait_seconds = 0;
  double exchanged_bytes = 0;
  double all_reduce_bytes = 0;
  double draft_seconds = 0;  // part of execute_seconds before the model's own pass
  uint64_t plan_hash = 0;    // of the step number and the plan's bytes
  uint64_t output_hash = 0;  // of counts, tokens, logits and hidden states
  StepTrace trace;           // empty unless BackendOptions::trace
};

}  // namespace nds
