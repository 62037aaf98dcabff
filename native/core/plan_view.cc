// A step plan read in place, validated against the model and the slots before anything runs.
#include "core/plan_view.h"

#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"

namespace nds {
namespace {

// Results are laid out with 32-bit offsets.
constexpr int64_t kMaxResultBytes = int64_t{2000} << 20;

[[noreturn]] void bad(int64_t step, const std::string& message) {
  throw Error("ERR_PLAN", "Plan " + std::to_string(step) + ": " + message);
}

std::string got(int64_t value) { return " but received " + std::to_string(value); }

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

void check_shapes(const PlanView& plan, const ProgramSpec& program) {
  const int num_seqs = plan.num_seqs();
  const auto expect = [&plan](const char* what, int64_t size, int64_t expected) {
    if (size != expected) bad(plan.step, "expected " + std::to_string(expected) + " " + what + got(size));
  };
  if (num_seqs < 1 || num_seqs > program.max_num_seqs) {
    bad(plan.step, "expected 1 to " + std::to_string(program.max_num_seqs) + " sequences" + got(num_seqs));
  }
  if (plan.num_tokens() < 1 || plan.num_tokens() > program.max_num_batched_tokens) {
    bad(plan.step,
        "expected 1 to " + std::to_string(program.max_num_batched_tokens) + " tokens" + got(plan.num_tokens()));
  }
  if (plan.logit_rows.size > program.max_num_logit_rows) {
    bad(plan.step,
        "expected at most " + std::to_string(program.max_num_logit_rows) + " logit rows" + got(plan.logit_rows.size));
  }
  expect("entries of cuQueryLens", plan.cu_query_lens.size, num_seqs + 1);
  expect("entries of contextLens", plan.context_lens.size, num_seqs);
  expect("entries of cuBlocks", plan.cu_blocks.size, num_seqs + 1);
  expect("kinds of logit rows", plan.logit_row_kinds.size, plan.logit_rows.size);
  const int64_t num_admitted = plan.admit_slots.size;
  expect("entries of admitLens", plan.admit_lens.size, num_admitted);
  expect("entries of admitFloats", plan.admit_floats.size, num_admitted * 3);
  expect("entries of admitInts", plan.admit_ints.size, num_admitted * 2);
  expect("entries of admitSeeds", plan.admit_seeds.size, num_admitted * 2);
}

void admit(const PlanView& plan, const ProgramSpec& program, SlotTable& slots) {
  for (int64_t i = 0; i < plan.admit_slots.size; i++) {
    const int32_t slot = plan.admit_slots[i];
    if (slot < 0 || slot >= program.max_num_seqs)
      bad(plan.step, "expected a slot below " + std::to_string(program.max_num_seqs) + got(slot));
    SlotParams params;
    params.temperature = plan.admit_floats[i * 3];
    params.top_p = plan.admit_floats[i * 3 + 1];
    params.min_p = plan.admit_floats[i * 3 + 2];
    params.top_k = plan.admit_ints[i * 2];
    params.sample_index = static_cast<uint32_t>(plan.admit_ints[i * 2 + 1]);
    params.seed = plan.admit_seeds[i * 2] | static_cast<uint64_t>(plan.admit_seeds[i * 2 + 1]) << 32;
    const bool valid = std::isfinite(params.temperature) && params.temperature >= 0 && params.top_p > 0 &&
                       params.top_p <= 1 && params.min_p >= 0 && params.min_p <= 1 && params.top_k >= 0;
    if (!valid) bad(plan.step, "expected sampling parameters in range for slot " + std::to_string(slot));
    const int32_t length = plan.admit_lens[i];
    if (length < 0 || length >= program.max_model_len)
      bad(plan.step, "expected a cached length below the model's" + got(length));
    slots[slot] = Slot{true, length, -1, params};
  }
}

void check_block_copies(const PlanView& plan, const ProgramSpec& program) {
  if (plan.block_copies.size % 2 != 0) bad(plan.step, "expected pairs of blocks to copy" + got(plan.block_copies.size));
  for (int64_t i = 0; i < plan.block_copies.size; i++) {
    const int32_t block = plan.block_copies[i];
    if (block < 0 || block >= program.kv.num_blocks)
      bad(plan.step, "expected a block below " + std::to_string(program.kv.num_blocks) + " to copy" + got(block));
    if (i % 2 == 1 && block == plan.block_copies[i - 1])
      bad(plan.step, "expected another block to copy to than block " + std::to_string(block) + " itself");
  }
}

void check_sequence(const PlanView& plan, const ProgramSpec& program, const SlotTable& slots, int i) {
  const std::string name = "sequence " + std::to_string(i);
  const int32_t slot = plan.slots[i];
  if (!slots[slot].admitted)
    bad(plan.step, "expected slot " + std::to_string(slot) + " of " + name + " to be admitted before it is used");
  const int32_t begin = plan.cu_query_lens[i], end = plan.cu_query_lens[i + 1];
  if (begin < 0 || end <= begin || end > plan.num_tokens())
    bad(plan.step, "expected at least one token for " + name + got(end - begin));
  const int64_t context = int64_t{slots[slot].length} + (end - begin);
  if (plan.context_lens[i] != context)
    bad(plan.step, "expected context length " + std::to_string(context) + " for " + name + got(plan.context_lens[i]));
  if (context > program.max_model_len)
    bad(plan.step, "expected at most " + std::to_string(program.max_model_len) + " tokens for " + name + got(context));
  const int32_t first_block = plan.cu_blocks[i], last_block = plan.cu_blocks[i + 1];
  if (first_block < 0 || last_block < first_block || last_block > plan.block_tables.size)
    bad(plan.step, "expected cuBlocks to ascend at " + name);
  const int64_t needed = (context + program.kv.block_size - 1) / program.kv.block_size;
  if (last_block - first_block < needed)
    bad(plan.step, "expected " + std::to_string(needed) + " blocks for " + name + got(last_block - first_block));
  for (int32_t b = first_block; b < last_block; b++) {
    const int32_t block = plan.block_tables[b];
    if (block < 0 || block >= program.kv.num_blocks)
      bad(plan.step, "expected a block below " + std::to_string(program.kv.num_blocks) + " for " + name + got(block));
  }
  for (int32_t row = begin; row < end; row++) {
    const int32_t id = plan.token_ids[row];
    const bool newest = id == -1 && row == begin && slots[slot].newest_token >= 0;
    if (!newest && (id < 0 || id >= program.vocab_size)) {
      bad(plan.step, "expected a token id below " + std::to_string(program.vocab_size) +
                         " (or -1 where the slot holds a token) for " + name + got(id));
    }
  }
}

void check_logit_rows(const PlanView& plan, const ProgramSpec& program) {
  int seq = 0;
  int64_t num_given_back = 0;
  for (int64_t i = 0; i < plan.logit_rows.size; i++) {
    const int32_t row = plan.logit_rows[i];
    if (row < 0 || row >= plan.num_tokens() || (i > 0 && row <= plan.logit_rows[i - 1]))
      bad(plan.step, "expected ascending logit rows" + got(row));
    while (row >= plan.cu_query_lens[seq + 1]) seq++;
    const int32_t kind = plan.logit_row_kinds[i];
    if (kind != static_cast<int32_t>(LogitRowKind::sample) && kind != static_cast<int32_t>(LogitRowKind::give_back)) {
      bad(plan.step, "expected a known kind of logit row" + got(kind));
    }
    if (kind == static_cast<int32_t>(LogitRowKind::give_back)) num_given_back++;
    if (kind == static_cast<int32_t>(LogitRowKind::sample) && row != plan.cu_query_lens[seq + 1] - 1) {
      bad(plan.step, "expected the row to sample to be the last of its sequence" + got(row));
    }
  }
  const int64_t most = kMaxResultBytes / (int64_t{program.vocab_size} * 4);
  if (num_given_back > most) {
    bad(plan.step, "expected at most " + std::to_string(most) + " logit rows to give back" + got(num_given_back));
  }
}

}  // namespace

PlanView view_plan(int64_t step, const int32_t* directory, int64_t directory_size, const uint8_t* bytes,
                   int64_t num_bytes) {
  PlanView plan;
  plan.step = step;
  std::vector<SectionTarget> targets = {
      target(1, true, plan.slots),         target(2, true, plan.token_ids),     target(3, true, plan.cu_query_lens),
      target(4, true, plan.context_lens),  target(5, true, plan.logit_rows),    target(6, true, plan.logit_row_kinds),
      target(7, false, plan.admit_slots),  target(8, false, plan.admit_lens),   target(9, false, plan.admit_floats),
      target(10, false, plan.admit_ints),  target(11, false, plan.admit_seeds), target(12, false, plan.block_copies),
      target(16, true, plan.block_tables), target(17, true, plan.cu_blocks),
  };
  const auto protocol_error = [step](const std::string& message) {
    throw Error("ERR_PROTOCOL", "Plan " + std::to_string(step) + ": " + message);
  };
  if (directory_size % 3 != 0) protocol_error("expected a directory of triples" + got(directory_size));
  for (int64_t i = 0; i < directory_size; i += 3) {
    const int32_t id = directory[i];
    const int64_t offset = directory[i + 1], length = directory[i + 2];
    SectionTarget* found = nullptr;
    for (SectionTarget& candidate : targets) {
      if (candidate.id == id) found = &candidate;
    }
    if (found == nullptr) protocol_error("expected a known section" + got(id));
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

void admit_and_check(const PlanView& plan, const ProgramSpec& program, SlotTable& slots) {
  check_shapes(plan, program);
  check_block_copies(plan, program);
  admit(plan, program, slots);
  std::vector<bool> used(slots.size());
  for (int64_t i = 0; i < plan.slots.size; i++) {
    const int32_t slot = plan.slots[i];
    if (slot < 0 || slot >= program.max_num_seqs)
      bad(plan.step, "expected a slot below " + std::to_string(program.max_num_seqs) + got(slot));
    if (used[slot]) bad(plan.step, "expected slot " + std::to_string(slot) + " once but received it twice");
    used[slot] = true;
  }
  if (plan.cu_query_lens[0] != 0 || plan.cu_query_lens[plan.num_seqs()] != plan.num_tokens()) {
    bad(plan.step, "expected cuQueryLens to run from 0 to " + std::to_string(plan.num_tokens()));
  }
  for (int i = 0; i < plan.num_seqs(); i++) check_sequence(plan, program, slots, i);
  check_logit_rows(plan, program);
}

}  // namespace nds
