// A step plan read in place.
#include "core/plan/plan_view.h"

#include <string>
#include <vector>

#include "core/error.h"
#include "core/plan/step_hash.h"

namespace nds {
namespace {

struct SectionTarget {
  int id;
  bool required;
  int64_t element_size;
  const void** data;
  int64_t* size;
};

template <typename T>
SectionTarget target(int id, bool required, Span<T>& span) {
  return {id, required, static_cast<int64_t>(sizeof(T)), reinterpret_cast<const void**>(&span.data), &span.size};
}

}  // namespace

PlanView view_plan(int64_t step, const int32_t* directory, int64_t directory_size, const uint8_t* bytes,
                   int64_t num_bytes) {
  PlanView plan;
  plan.step = step;
  plan.hash = hash_bytes(bytes, static_cast<size_t>(num_bytes),
                         hash_bytes(directory, static_cast<size_t>(directory_size) * 4, static_cast<uint64_t>(step)));
  std::vector<SectionTarget> targets = {
      target(1, true, plan.slots),
      target(2, true, plan.token_ids),
      target(3, true, plan.cu_query_lens),
      target(4, true, plan.context_lens),
      target(5, true, plan.logit_rows),
      target(6, true, plan.logit_row_kinds),
      target(7, false, plan.admit_slots),
      target(8, false, plan.admit_lens),
      target(9, false, plan.admit_floats),
      target(10, false, plan.admit_ints),
      target(11, false, plan.admit_seeds),
      target(16, true, plan.block_tables),
      target(17, true, plan.cu_blocks),
      target(12, false, plan.block_copies),
      target(13, false, plan.logit_row_targets),
      target(14, false, plan.num_drafts),
      target(15, false, plan.draft_lens),
      target(18, false, plan.draft_block_tables),
      target(19, false, plan.draft_cu_blocks),
      target(20, false, plan.hidden_rows),
      target(32, false, plan.history.values),
      target(33, false, plan.history.offsets),
      target(34, false, plan.bias.values),
      target(35, false, plan.bias_values),
      target(36, false, plan.bias.offsets),
      target(37, false, plan.allowed.values),
      target(38, false, plan.allowed.offsets),
      target(39, false, plan.stops.values),
      target(40, false, plan.stops.offsets),
      target(41, false, plan.bad_words.values),
      target(42, false, plan.bad_words.offsets),
      target(43, false, plan.cu_bad_words),
  };
  const auto protocol_error = [step](const std::string& message) {
    throw Error("ERR_PROTOCOL", "Plan " + std::to_string(step) + ": " + message);
  };
  if (directory_size % 3 != 0)
    protocol_error("expected a directory of triples but received " + std::to_string(directory_size));
  for (int64_t i = 0; i < directory_size; i += 3) {
    const int32_t id = directory[i];
    const int64_t offset = directory[i + 1], length = directory[i + 2];
    SectionTarget* found = nullptr;
    for (SectionTarget& candidate : targets) {
      if (candidate.id == id) found = &candidate;
    }
    if (found == nullptr) protocol_error("expected a known section but received " + std::to_string(id));
    if (*found->data != nullptr)
      protocol_error("expected section " + std::to_string(id) + " once but received it twice");
    if (offset < 0 || length < 0 || offset % 64 != 0 || offset + length > num_bytes ||
        length % found->element_size != 0) {
      protocol_error("expected section " + std::to_string(id) + " inside " + std::to_string(num_bytes) +
                     " bytes but received offset " + std::to_string(offset) + ", length " + std::to_string(length));
    }
    *found->data = bytes + offset;
    *found->size = length / found->element_size;
  }
  for (const SectionTarget& section : targets) {
    if (section.required && *section.data == nullptr)
      protocol_error("expected section " + std::to_string(section.id) + " but it is missing");
  }
  return plan;
}

}  // namespace nds
