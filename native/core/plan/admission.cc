// Loads the slots that a plan admits.
#include "core/plan/admission.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "core/error.h"

namespace nds {
namespace {

class Admission {
 public:
  Admission(const PlanView& plan, const ProgramSpec& program) : plan_(plan), program_(program) {}

  void check_lists() const {
    const int64_t num_admitted = plan_.admit_slots.size;
    check_offsets(plan_.history, num_admitted, "history");
    check_offsets(plan_.bias, num_admitted, "bias");
    check_offsets(plan_.allowed, num_admitted, "allowed");
    check_offsets(plan_.stops, num_admitted, "stops");
    if (plan_.bias_values.size != plan_.bias.values.size) bad("expected a bias for each token that has one");
    const Ragged words{{nullptr, plan_.bad_words.offsets.size > 0 ? plan_.bad_words.offsets.size - 1 : 0},
                       plan_.cu_bad_words};
    check_offsets(words, num_admitted, "cuBadWords");
    check_offsets(plan_.bad_words, words.values.size, "badWords");
  }

  Slot read(int64_t i) const {
    SlotParams params = read_numbers(i);
    params.bias_ids = list(plan_.bias, i);
    if (!params.bias_ids.empty()) {
      const float* first = plan_.bias_values.data + plan_.bias.offsets[i];
      params.bias_values.assign(first, first + params.bias_ids.size());
    }
    params.allowed = list(plan_.allowed, i);
    params.stops = list(plan_.stops, i);
    for (int32_t w = 0; plan_.cu_bad_words.size > 0 && w < plan_.cu_bad_words[i + 1] - plan_.cu_bad_words[i]; w++) {
      params.bad_words.push_back(list(plan_.bad_words, plan_.cu_bad_words[i] + w));
      if (params.bad_words.back().empty()) bad("expected bad words of at least one token");
    }
    for (const float bias : params.bias_values)
      if (!std::isfinite(bias)) bad("expected finite biases");
    const int32_t length = plan_.admit_lens[i];
    if (length < 0 || length >= program_.max_model_len)
      bad("expected a cached length below the model's but received " + std::to_string(length));
    std::vector<int32_t> history = list(plan_.history, i);
    if (!params.keeps_history()) history.clear();
    Slot slot;
    slot.admitted = true;
    slot.length = length;
    if (params.looks_back()) slot.counts = TokenCounts(history, params.num_prompt_tokens);
    slot.history = std::move(history);
    slot.params = std::move(params);
    return slot;
  }

 private:
  SlotParams read_numbers(int64_t i) const {
    const float* floats = plan_.admit_floats.data + i * kNumAdmitFloats;
    const int32_t* ints = plan_.admit_ints.data + i * kNumAdmitInts;
    SlotParams p;
    for (int f = 0; f < kNumAdmitFloats; f++) p.*kSlotFloats[f] = floats[f];
    p.top_k = ints[0];
    p.sample_index = static_cast<uint32_t>(ints[1]);
    p.num_prompt_tokens = ints[2];
    p.min_tokens = ints[3];
    p.num_logprobs = std::min(ints[4], program_.sample_vocab_size);
    p.num_prompt_logprobs = std::min(ints[5], program_.sample_vocab_size);
    p.may_draft = ints[6] != 0;
    p.seed = plan_.admit_seeds[i * 2] | static_cast<uint64_t>(plan_.admit_seeds[i * 2 + 1]) << 32;
    const bool valid = std::isfinite(p.temperature) && p.temperature >= 0 && p.top_p > 0 && p.top_p <= 1 &&
                       p.min_p >= 0 && p.min_p <= 1 && p.top_k >= 0 && std::isfinite(p.presence_penalty) &&
                       std::isfinite(p.frequency_penalty) && std::isfinite(p.repetition_penalty) &&
                       p.repetition_penalty > 0 && p.num_prompt_tokens >= 0 && p.min_tokens >= 0 &&
                       p.num_logprobs >= -1 && p.num_prompt_logprobs >= -1;
    if (!valid) bad("expected sampling parameters in range for slot " + std::to_string(plan_.admit_slots[i]));
    return p;
  }

  // Token ids of list i.
  std::vector<int32_t> list(const Ragged& lists, int64_t i) const {
    if (lists.offsets.size == 0) return {};
    std::vector<int32_t> values(lists.values.data + lists.offsets[i], lists.values.data + lists.offsets[i + 1]);
    for (const int32_t id : values) {
      if (id < 0 || id >= program_.vocab_size)
        bad("expected token ids below " + std::to_string(program_.vocab_size) + " but received " + std::to_string(id));
    }
    return values;
  }

  void check_offsets(const Ragged& lists, int64_t num_lists, const char* name) const {
    const Span<int32_t>& offsets = lists.offsets;
    bool valid = offsets.size == (offsets.size == 0 && lists.values.size == 0 ? 0 : num_lists + 1);
    if (valid && offsets.size > 0) valid = offsets[0] == 0 && offsets[num_lists] == lists.values.size;
    for (int64_t i = 1; valid && i < offsets.size; i++) valid = offsets[i - 1] <= offsets[i];
    if (!valid) bad("expected the offsets of " + std::string(name) + " to ascend over all its values");
  }

  [[noreturn]] void bad(const std::string& message) const {
    throw Error("ERR_PLAN", "Plan " + std::to_string(plan_.step) + ": " + message);
  }

  const PlanView& plan_;
  const ProgramSpec& program_;
};

}  // namespace

void admit_slots(const PlanView& plan, const ProgramSpec& program, SlotTable& slots) {
  const Admission admission(plan, program);
  admission.check_lists();
  for (int64_t i = 0; i < plan.admit_slots.size; i++) {
    const int32_t slot = plan.admit_slots[i];
    if (slot < 0 || slot >= program.max_num_seqs) {
      throw Error("ERR_PLAN", "Plan " + std::to_string(plan.step) + ": expected a slot below " +
                                  std::to_string(program.max_num_seqs) + " but received " + std::to_string(slot));
    }
    slots[slot] = admission.read(i);
  }
}

}  // namespace nds
