// What a step produced. The addon lays it out as protocol/step-result.ts has it.
#pragma once
#include <cstdint>
#include <vector>

namespace nds {

struct StepResult {
  std::vector<int32_t> num_tokens;  // [num_seqs]
  std::vector<int32_t> token_ids;
  std::vector<float> logits;  // [num_return_rows, vocab_size]
  double execute_seconds = 0;
  double wait_seconds = 0;
  double exchanged_bytes = 0;
  double all_reduce_bytes = 0;
};

}  // namespace nds
