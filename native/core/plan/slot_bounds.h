// State of a slot when a plan is checked: exact if steps run one after the other, bounds while a step that accepts
// drafts is in flight.
#pragma once
#include <cstdint>
#include <functional>

#include "core/plan/slots.h"

namespace nds {

struct SlotBounds {
  bool admitted = false;
  int32_t least_length = 0, most_length = 0;  // tokens whose KV is cached
  bool has_newest_token = false;
  bool has_uncertain_length = false;  // whether a plan may have been built before the length was known
  // Uncached tokens of the history; exact even if the lengths are not.
  bool keeps_history = false;
  int32_t num_uncached_history = 0;
  // *_behind: tokens of the history that the draft has not seen.
  bool may_draft = false;
  int32_t least_draft_length = 0, most_draft_length = 0, least_behind = 0, most_behind = 0;
  int32_t num_logprobs = -1, num_prompt_logprobs = -1;
};

inline SlotBounds bounds_of(const Slot& slot) {
  const int32_t num_history = static_cast<int32_t>(slot.history.size()), behind = num_history - slot.draft_length;
  return {.admitted = slot.admitted,
          .least_length = slot.length,
          .most_length = slot.length,
          .has_newest_token = slot.newest_token >= 0,
          .has_uncertain_length = slot.has_uncertain_length,
          .keeps_history = slot.params.keeps_history(),
          .num_uncached_history = num_history - slot.length,
          .may_draft = slot.params.may_draft,
          .least_draft_length = slot.draft_length,
          .most_draft_length = slot.draft_length,
          .least_behind = behind,
          .most_behind = behind,
          .num_logprobs = slot.params.num_logprobs,
          .num_prompt_logprobs = slot.params.num_prompt_logprobs};
}

// Bounds of a slot by its number, which must be in range.
using BoundsOf = std::function<SlotBounds(int32_t)>;

}  // namespace nds
