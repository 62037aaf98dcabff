// Occurrences of each token in a sequence, for penalties.
#include "core/plan/token_counts.h"

namespace nds {

TokenCounts::TokenCounts(const std::vector<int32_t>& history, int32_t num_prompt_tokens) {
  for (size_t i = 0; i < history.size(); i++) {
    Count& count = count_of(history[i]);
    if (i >= static_cast<size_t>(num_prompt_tokens)) count.num_output++;
  }
}

TokenCounts::Count& TokenCounts::count_of(int32_t id) {
  const auto [place, is_new] = places_.try_emplace(id, counts_.size());
  if (is_new) counts_.push_back({id, 0});
  return counts_[place->second];
}

}  // namespace nds
