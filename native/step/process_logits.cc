// The only transform from raw logits to the logits that are sampled from, up to the temperature.
#include "step/process_logits.h"

#include <algorithm>
#include <limits>

namespace nds {
namespace {

constexpr float kBarred = -std::numeric_limits<float>::infinity();

// A part of a row, indexed by token id.
class Row {
 public:
  Row(float* values, int first_id, int n) : values_(values), first_id_(first_id), n_(n) {}

  // Null for an id outside this part.
  float* find(int32_t id) const {
    return id >= first_id_ && id < first_id_ + n_ ? values_ + (id - first_id_) : nullptr;
  }
  void bar(int32_t id) const {
    if (float* logit = find(id)) *logit = kBarred;
  }

 private:
  float* values_;
  int first_id_, n_;
};

void copy_allowed(const float* logits, int first_id, int n, const std::vector<int32_t>& allowed, float* out) {
  if (allowed.empty()) {
    std::copy_n(logits, n, out);
    return;
  }
  std::fill_n(out, n, kBarred);
  for (const int32_t id : allowed) {
    if (id >= first_id && id < first_id + n) out[id - first_id] = logits[id - first_id];
  }
}

// Whether the output, drafts included, ends with all tokens of the word except its last.
bool is_begun(const std::vector<int32_t>& word, const Slot& slot, Span<int32_t> drafts) {
  const int64_t num_begun = static_cast<int64_t>(word.size()) - 1;
  const int64_t num_history = static_cast<int64_t>(slot.history.size());
  if (num_begun == 0) return true;
  if (num_history + drafts.size < slot.params.num_prompt_tokens + num_begun) return false;
  for (int64_t i = 0; i < num_begun; i++) {
    const int64_t place = num_history + drafts.size - num_begun + i;
    const int32_t token = place < num_history ? slot.history[place] : drafts[place - num_history];
    if (token != word[i]) return false;
  }
  return true;
}

void penalize(float& logit, const SlotParams& p, int32_t num_output) {
  if (p.repetition_penalty != 1) logit = logit > 0 ? logit / p.repetition_penalty : logit * p.repetition_penalty;
  if (num_output == 0) return;
  logit -= p.frequency_penalty * static_cast<float>(num_output);
  logit -= p.presence_penalty;
}

// Penalizes each token seen once: tokens of the history, whose counts include the drafts, then tokens only drafts have.
void penalize(const Row& row, const Slot& slot, Span<int32_t> drafts) {
  const auto num_drafted = [drafts](int32_t id) {
    return static_cast<int32_t>(std::count(drafts.data, drafts.data + drafts.size, id));
  };
  for (const TokenCounts::Count& count : slot.counts.all()) {
    if (float* logit = row.find(count.id)) penalize(*logit, slot.params, count.num_output + num_drafted(count.id));
  }
  for (int64_t i = 0; i < drafts.size; i++) {
    const int32_t id = drafts[i];
    float* const logit = row.find(id);
    const bool is_repeat = std::count(drafts.data, drafts.data + i, id) > 0;
    if (logit != nullptr && !is_repeat && !slot.counts.has(id)) penalize(*logit, slot.params, num_drafted(id));
  }
}

}  // namespace

void process_logits(const float* logits, int first_id, int n, const Slot& slot, Span<int32_t> drafts, int num_output,
                    float* out) {
  const SlotParams& p = slot.params;
  const Row row(out, first_id, n);
  copy_allowed(logits, first_id, n, p.allowed, out);
  for (const std::vector<int32_t>& word : p.bad_words) {
    if (is_begun(word, slot, drafts)) row.bar(word.back());
  }
  if (p.penalizes()) penalize(row, slot, drafts);
  for (size_t i = 0; i < p.bias_ids.size(); i++) {
    if (float* logit = row.find(p.bias_ids[i])) *logit += p.bias_values[i];
  }
  if (num_output < p.min_tokens) {
    for (const int32_t id : p.stops) row.bar(id);
  }
}

}  // namespace nds
