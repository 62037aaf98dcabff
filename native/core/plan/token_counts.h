// How often each token stands in a sequence: what penalties look at.
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
    int32_t num_output;  // 0 for a token of the prompt alone
  };

  TokenCounts() = default;
  // Of a prompt of num_prompt_tokens and the output after it.
  TokenCounts(const std::vector<int32_t>& history, int32_t num_prompt_tokens);

  void add_output(int32_t id) { count_of(id).num_output++; }
  bool has(int32_t id) const { return places_.count(id) > 0; }
  // One for each token seen, in no order that matters.
  const std::vector<Count>& all() const { return counts_; }

 private:
  Count& count_of(int32_t id);

  std::vector<Count> counts_;
  std::unordered_map<int32_t, size_t> places_;
};

}  // namespace nds
