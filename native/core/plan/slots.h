// Per-sequence state that native keeps between steps, so that a plan need not know the previous step's tokens.
#pragma once
#include <cstdint>
#include <vector>

#include "core/plan/token_counts.h"

namespace nds {

struct SlotParams {
  float temperature = 0;
  float top_p = 1;
  float min_p = 0;
  int32_t top_k = 0;
  uint32_t sample_index = 0;
  uint64_t seed = 0;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  float repetition_penalty = 1;
  int32_t num_prompt_tokens = 0;
  int32_t min_tokens = 0;
  int32_t num_logprobs = -1;         // number of likeliest tokens beside the drawn one; -1 = no log-probabilities
  int32_t num_prompt_logprobs = -1;  // the same for prompt tokens
  std::vector<int32_t> bias_ids;
  std::vector<float> bias_values;
  std::vector<int32_t> allowed;  // the only tokens that may be drawn; empty = all
  std::vector<int32_t> stops;    // barred until the output has min_tokens tokens
  std::vector<std::vector<int32_t>> bad_words;
  bool may_draft = false;  // whether the draft may propose for this slot

  bool filtered() const { return temperature > 0 && (top_k > 0 || top_p < 1 || min_p > 0); }
  bool penalizes() const { return presence_penalty != 0 || frequency_penalty != 0 || repetition_penalty != 1; }
  // Whether process_logits changes any logit of a row whose token follows num_output output tokens.
  bool edits_logits(int num_output) const {
    return !allowed.empty() || !bad_words.empty() || penalizes() || !bias_ids.empty() ||
           (num_output < min_tokens && !stops.empty());
  }
  // Whether the choice of a token depends on the tokens before it.
  bool looks_back() const {
    for (const std::vector<int32_t>& word : bad_words)
      if (word.size() > 1) return true;
    return penalizes();
  }
  bool keeps_history() const { return may_draft || looks_back(); }
};

// Parameters in the order of a plan's admit_floats. Mirrors slotFloats of protocol/step-plan.ts.
constexpr float SlotParams::* kSlotFloats[] = {
    &SlotParams::temperature,
    &SlotParams::top_p,
    &SlotParams::min_p,
    &SlotParams::presence_penalty,
    &SlotParams::frequency_penalty,
    &SlotParams::repetition_penalty,
};

struct Slot {
  bool admitted = false;
  int32_t length = 0;         // tokens whose KV is cached
  int32_t newest_token = -1;  // sampled and not yet cached; -1 = none
  int32_t draft_length = 0;   // tokens whose KV the draft has cached
  // Whether drafts were verified since admission: a plan may have been built before the number of accepted drafts was
  // known.
  bool has_uncertain_length = false;
  SlotParams params;
  // If keeps_history(): prompt, then output, complete after each step that samples. Else empty.
  std::vector<int32_t> history;
  TokenCounts counts;  // of history

  // Appends a sampled token.
  void append(int32_t token) {
    newest_token = token;
    if (!params.keeps_history()) return;
    history.push_back(token);
    if (params.looks_back()) counts.add_output(token);
  }
};

using SlotTable = std::vector<Slot>;

}  // namespace nds
