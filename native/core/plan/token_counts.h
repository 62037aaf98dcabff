// Occurrences of each token in a sequence, for penalties.
#pragma once
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace nds {

class TokenCounts {
 public:
  struct Count {
    int32_t id;
    int32_t num_output;  // occurrences in the output; 0 = in the prompt only
  };

  TokenCounts() = default;
  // history: a prompt of num_prompt_tokens, then the output.
  TokenCounts(const std::vector<int32_t>& history, int32_t num_prompt_tokens);

  void add_output(int32_t id) { count_of(id).num_output++; }
  bool has(int32_t id) const { return places_.count(id) > 0; }
  // One entry per distinct token, in unspecified order.
  const std::vector<Count>& all() const { return counts_; }

 private:
  Count& count_of(int32_t id);

  std::vector<Count> counts_;
  std::unordered_map<int32_t, size_t> places_;
};

}  // namespace nds
