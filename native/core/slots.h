// Per-sequence state that native keeps between steps, so that a plan need not know what the step before it produced.
#pragma once
#include <cstdint>
#include <vector>

namespace nds {

struct SlotParams {
  float temperature = 0;
  float top_p = 1;
  float min_p = 0;
  int32_t top_k = 0;
  uint32_t sample_index = 0;
  uint64_t seed = 0;

  bool filtered() const { return temperature > 0 && (top_k > 0 || top_p < 1 || min_p > 0); }
};

struct Slot {
  bool admitted = false;
  int32_t length = 0;         // tokens whose KV is cached
  int32_t newest_token = -1;  // sampled and not yet cached; -1 = none
  SlotParams params;
};

using SlotTable = std::vector<Slot>;

}  // namespace nds
