// Range checks of every index of a plan, before anything runs.
#include <string>
#include <vector>

#include "core/error.h"
#include "core/plan/admission.h"
#include "core/plan/plan_view.h"

namespace nds {
namespace {

// Offsets in a result are 32-bit.
constexpr int64_t kMaxResultBytes = int64_t{2000} << 20;

[[noreturn]] void bad(int64_t step, const std::string& message) {
  throw Error("ERR_PLAN", "Plan " + std::to_string(step) + ": " + message);
}

std::string got(int64_t value) { return " but received " + std::to_string(value); }

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

// Checks that sequence i has blocks for num_tokens tokens.
void check_blocks(const PlanView& plan, const ProgramSpec& program, const Span<int32_t>& tables,
                  const Span<int32_t>& cu_blocks, int i, int64_t num_tokens) {
  const std::string name = "sequence " + std::to_string(i);
  const int32_t first_block = cu_blocks[i], last_block = cu_blocks[i + 1];
  if (first_block < 0 || last_block < first_block || last_block > tables.size)
    bad(plan.step, "expected cuBlocks to ascend at " + name);
  const int64_t needed = (num_tokens + program.kv.block_size - 1) / program.kv.block_size;
  if (last_block - first_block < needed)
    bad(plan.step, "expected " + std::to_string(needed) + " blocks for " + name + got(last_block - first_block));
  for (int32_t b = first_block; b < last_block; b++) {
    if (tables[b] < 0 || tables[b] >= program.kv.num_blocks)
      bad(plan.step,
          "expected a block below " + std::to_string(program.kv.num_blocks) + " for " + name + got(tables[b]));
  }
}

void check_sequence(const PlanView& plan, const ProgramSpec& program, const SlotBounds& slot, int i) {
  const std::string name = "sequence " + std::to_string(i);
  if (!slot.admitted)
    bad(plan.step,
        "expected slot " + std::to_string(plan.slots[i]) + " of " + name + " to be admitted before it is used");
  const int32_t begin = plan.cu_query_lens[i], end = plan.cu_query_lens[i + 1];
  if (begin < 0 || end <= begin || end > plan.num_tokens())
    bad(plan.step, "expected at least one token for " + name + got(end - begin));
  const int64_t context = int64_t{slot.most_length} + (end - begin);
  // After drafts a plan knows only an upper bound of the length.
  if (plan.context_lens[i] != context && !(slot.has_uncertain_length && plan.context_lens[i] > context))
    bad(plan.step, "expected context length " + std::to_string(context) + " for " + name + got(plan.context_lens[i]));
  if (context > program.max_model_len)
    bad(plan.step, "expected at most " + std::to_string(program.max_model_len) + " tokens for " + name + got(context));
  check_blocks(plan, program, plan.block_tables, plan.cu_blocks, i, context);
  const int32_t num_drafts = plan.num_drafts_of(i);
  if (num_drafts > kMaxPlanDrafts)
    bad(plan.step, "expected at most " + std::to_string(kMaxPlanDrafts) + " drafts for " + name + got(num_drafts));
  if (num_drafts < 0 || (num_drafts > 0 && num_drafts != end - begin - 1))
    bad(plan.step, "expected one token and then drafts for " + name + got(num_drafts));
  for (int32_t row = begin; row < end; row++) {
    const int32_t id = plan.token_ids[row];
    const bool is_newest = id == kNewestToken && row == begin && slot.has_newest_token;
    const bool is_draft = plan.wants_draft(i) && row > begin && id == kFirstDraft - (row - begin - 1);
    // The drafts of a sequence are all given by the plan or all proposed by the draft.
    const bool is_given = id >= 0 && id < program.vocab_size && !(plan.wants_draft(i) && row > begin);
    if (!is_newest && !is_draft && !is_given) {
      bad(plan.step, "expected a token id below " + std::to_string(program.vocab_size) +
                         " (or -1 where the slot holds a token, or -2 and on for all drafts) for " + name + got(id));
    }
  }
}

// Checks the draft's part: enough history, room in its cache, and no more rows than one pass holds.
void check_draft(const PlanView& plan, const ProgramSpec* draft, const BoundsOf& bounds_of) {
  int64_t num_rows = 0;
  for (int i = 0; i < plan.num_seqs(); i++) {
    const std::string name = "sequence " + std::to_string(i);
    if (plan.draft_lens.size == 0) {
      if (plan.wants_draft(i)) bad(plan.step, "expected draftLens beside drafts to be proposed for " + name);
      continue;
    }
    const SlotBounds slot = bounds_of(plan.slots[i]);
    if (draft == nullptr) bad(plan.step, "expected no draftLens where no draft is loaded");
    if (plan.draft_lens[i] < 0 || (plan.draft_lens[i] > 0 && !slot.may_draft))
      bad(plan.step, "expected a slot that was admitted with its history for the draft of " + name);
    const int num_tokens = std::min(plan.draft_lens[i], slot.most_behind);
    const int64_t num_drafts = plan.wants_draft(i) ? plan.num_drafts_of(i) : 0;
    const bool is_behind = num_tokens < slot.most_behind;
    if (num_drafts > 0 && (is_behind || std::min(num_tokens, slot.least_behind) < 1))
      bad(plan.step, "expected a draft that sees the newest token of " + name + got(plan.draft_lens[i]));
    num_rows += num_tokens;
    // The last draft is never fed back to the draft model, so it needs no room.
    const int64_t context = int64_t{slot.most_draft_length} + num_tokens + std::max<int64_t>(0, num_drafts - 1);
    if (context > draft->max_model_len)
      bad(plan.step, "expected at most " + std::to_string(draft->max_model_len) + " tokens for the draft of " + name +
                         got(context));
    if (num_tokens > 0) check_blocks(plan, *draft, plan.draft_block_tables, plan.draft_cu_blocks, i, context);
  }
  if (num_rows > 0 && num_rows > draft->max_num_batched_tokens)
    bad(plan.step,
        "expected at most " + std::to_string(draft->max_num_batched_tokens) + " tokens for the draft" + got(num_rows));
}

// Result bytes of a row's log-probabilities: n likeliest tokens and one more.
int64_t logprob_bytes(int32_t n) { return n < 0 ? 0 : (int64_t{n} + 1) * 8; }

// Checks that the history of sequence i ends with its last token that is no draft: it samples after that one.
void check_history(const PlanView& plan, const SlotBounds& slot, int i) {
  const int64_t num_known = plan.cu_query_lens[i + 1] - plan.cu_query_lens[i] - plan.num_drafts_of(i);
  if (slot.keeps_history && slot.num_uncached_history != num_known) {
    bad(plan.step, "expected a history of " + std::to_string(slot.most_length + num_known) +
                       " tokens for the row to sample" + got(int64_t{slot.most_length} + slot.num_uncached_history));
  }
}

void check_logit_rows(const PlanView& plan, const ProgramSpec& program, const BoundsOf& bounds_of) {
  int seq = 0;
  int64_t result_bytes = 0;
  std::vector<int> num_samples(plan.num_seqs());
  for (int64_t i = 0; i < plan.logit_rows.size; i++) {
    const int32_t row = plan.logit_rows[i];
    if (row < 0 || row >= plan.num_tokens() || (i > 0 && row <= plan.logit_rows[i - 1]))
      bad(plan.step, "expected ascending logit rows" + got(row));
    while (row >= plan.cu_query_lens[seq + 1]) seq++;
    const int32_t kind = plan.logit_row_kinds[i];
    const SlotBounds slot = bounds_of(plan.slots[seq]);
    if (kind < 0 || kind > static_cast<int32_t>(LogitRowKind::prompt_logprobs))
      bad(plan.step, "expected a known kind of logit row" + got(kind));
    if (kind == static_cast<int32_t>(LogitRowKind::prompt_logprobs)) {
      const int32_t token = i < plan.logit_row_targets.size ? plan.logit_row_targets[i] : -1;
      if (token < 0 || token >= program.vocab_size)
        bad(plan.step, "expected a token whose log-probability row " + std::to_string(row) + " gives" + got(token));
      if (slot.num_prompt_logprobs < 0)
        bad(plan.step, "expected a slot with prompt log-probabilities for row " + std::to_string(row));
      result_bytes += logprob_bytes(slot.num_prompt_logprobs);
    }
    if (kind == static_cast<int32_t>(LogitRowKind::give_back)) result_bytes += int64_t{program.vocab_size} * 4;
    if (kind == static_cast<int32_t>(LogitRowKind::sample)) {
      if (row < plan.cu_query_lens[seq + 1] - 1 - plan.num_drafts_of(seq))
        bad(plan.step, "expected the rows to sample to be the last of their sequence" + got(row));
      check_history(plan, slot, seq);
      num_samples[seq]++;
      result_bytes += logprob_bytes(slot.num_logprobs);
    }
  }
  for (int64_t i = 0; i < plan.hidden_rows.size; i++) {
    const int32_t row = plan.hidden_rows[i];
    if (row < 0 || row >= plan.num_tokens() || (i > 0 && row <= plan.hidden_rows[i - 1]))
      bad(plan.step, "expected ascending rows of hidden states" + got(row));
    result_bytes += int64_t{program.hidden_size} * 4;
  }
  for (int i = 0; i < plan.num_seqs(); i++) {
    const int num_drafts = plan.num_drafts_of(i);
    if (num_drafts > 0 && num_samples[i] != num_drafts + 1)
      bad(plan.step, "expected a row to sample for the newest token and for each draft of sequence " +
                         std::to_string(i) + got(num_samples[i]));
  }
  if (result_bytes > kMaxResultBytes) {
    bad(plan.step, "expected at most " + std::to_string(kMaxResultBytes) +
                       " bytes of logits, hidden states and log-probabilities" + got(result_bytes));
  }
}

}  // namespace

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
  if (plan.num_drafts.size != 0) expect("numbers of drafts", plan.num_drafts.size, num_seqs);
  if (plan.draft_lens.size != 0) {
    expect("entries of draftLens", plan.draft_lens.size, num_seqs);
    expect("entries of the draft's cuBlocks", plan.draft_cu_blocks.size, num_seqs + 1);
  }
  expect("kinds of logit rows", plan.logit_row_kinds.size, plan.logit_rows.size);
  if (plan.logit_row_targets.size != 0)
    expect("targets of logit rows", plan.logit_row_targets.size, plan.logit_rows.size);
  const int64_t num_admitted = plan.admit_slots.size;
  expect("entries of admitLens", plan.admit_lens.size, num_admitted);
  expect("entries of admitFloats", plan.admit_floats.size, num_admitted * kNumAdmitFloats);
  expect("entries of admitInts", plan.admit_ints.size, num_admitted * kNumAdmitInts);
  expect("entries of admitSeeds", plan.admit_seeds.size, num_admitted * 2);
  check_block_copies(plan, program);
}

void check_plan(const PlanView& plan, const ProgramSpec& program, const ProgramSpec* draft, const BoundsOf& bounds_of) {
  std::vector<bool> used(program.max_num_seqs);
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
  for (int i = 0; i < plan.num_seqs(); i++) check_sequence(plan, program, bounds_of(plan.slots[i]), i);
  check_logit_rows(plan, program, bounds_of);
  check_draft(plan, draft, bounds_of);
}

void admit_and_check(const PlanView& plan, const ProgramSpec& program, const ProgramSpec* draft, SlotTable& slots) {
  check_shapes(plan, program);
  admit_slots(plan, program, slots);
  check_plan(plan, program, draft, [&slots](int32_t slot) { return bounds_of(slots[slot]); });
}

}  // namespace nds
