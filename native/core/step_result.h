// What a step produced. The addon lays it out as protocol/step-result.ts has it.
#pragma once
#include <cstdint>
#include <vector>

namespace nds {

struct StepResult {
  std::vector<int32_t> num_tokens;  // [num_seqs]
  std::vector<int32_t> token_ids;
  std::vector<float> logits;  // [num_return_rows, vocab_size]
  // Of rank 0 alone. Of each row with log-probabilities the token drawn or asked for, then the likeliest.
  std::vector<int32_t> logprob_ids;
  std::vector<float> logprobs;
  std::vector<int32_t> logprob_ranks;  // [number of such rows] place of the first token among all, from 1
  double execute_seconds = 0;
  double wait_seconds = 0;
  double exchanged_bytes = 0;
  double all_reduce_bytes = 0;
};

}  // namespace nds
