// A step plan, read in place and validated against the model and the slots before anything runs. Mirrors
// protocol/step-plan.ts.
#pragma once
#include <algorithm>
#include <cstdint>
#include <iterator>

#include "core/plan/slot_bounds.h"
#include "core/plan/slots.h"
#include "core/program/program.h"
#include "core/span.h"

namespace nds {

enum class LogitRowKind : int32_t { sample = 0, give_back = 1, prompt_logprobs = 2 };

// Number of likeliest tokens that a row reports beside its own; -1 = no log-probabilities.
inline int num_likeliest_of(LogitRowKind kind, const SlotParams& params) {
  if (kind == LogitRowKind::give_back) return -1;
  return kind == LogitRowKind::sample ? params.num_logprobs : params.num_prompt_logprobs;
}

// List i is values[offsets[i] … offsets[i + 1]); both spans are empty if there is no list.
struct Ragged {
  Span<int32_t> values, offsets;
};

constexpr int kNumAdmitFloats = std::size(kSlotFloats), kNumAdmitInts = 7;

constexpr int kMaxPlanDrafts = 64;  // per sequence

// Placeholders in token_ids for tokens that native knows before JavaScript does.
constexpr int32_t kNewestToken = -1;  // of the sequence's slot
constexpr int32_t kFirstDraft = -2;   // kFirstDraft - i is the draft's proposal i of this step

struct PlanView {
  int64_t step = 0;
  uint64_t hash = 0;  // of the step number and all bytes below
  Span<int32_t> slots, token_ids, cu_query_lens, context_lens, logit_rows, logit_row_kinds, logit_row_targets;
  Span<int32_t> hidden_rows;  // rows whose hidden states are given back, ascending
  Span<int32_t> admit_slots, admit_lens, admit_ints;
  Span<float> admit_floats;
  Span<uint32_t> admit_seeds;
  Ragged history, bias, allowed, stops, bad_words;  // one list per admitted slot; bad_words has one per word
  Span<float> bias_values;
  Span<int32_t> cu_bad_words;  // [num_admitted + 1] words
  Span<int32_t> block_copies;  // [num_block_copies, 2] source, destination
  Span<int32_t> block_tables, cu_blocks;
  Span<int32_t> num_drafts;  // [num_seqs] drafts at the end of each sequence's tokens; empty = no drafts at all
  // [num_seqs] max tokens that the draft catches up on before it proposes; empty = it takes no part in this step.
  Span<int32_t> draft_lens;
  Span<int32_t> draft_block_tables, draft_cu_blocks;

  int64_t num_block_copies() const { return block_copies.size / 2; }
  int num_seqs() const { return static_cast<int>(slots.size); }
  int num_tokens() const { return static_cast<int>(token_ids.size); }
  int num_drafts_of(int i) const { return num_drafts.size == 0 ? 0 : num_drafts[i]; }
  // Whether the draft proposes the drafts of sequence i.
  bool wants_draft(int i) const { return num_drafts_of(i) > 0 && token_ids[cu_query_lens[i + 1] - 1] <= kFirstDraft; }
  // Calls body(logit row, row of the plan, sequence, kind) for every logit row. The plan must have been checked.
  template <typename Body>
  void each_logit_row(Body body) const {
    int seq = 0;
    for (int i = 0; i < static_cast<int>(logit_rows.size); i++) {
      while (logit_rows[i] >= cu_query_lens[seq + 1]) seq++;
      body(i, logit_rows[i], seq, static_cast<LogitRowKind>(logit_row_kinds[i]));
    }
  }
  // Tokens of sequence i that the draft catches up on before it proposes.
  int draft_catch_up(int i, const Slot& slot) const {
    return std::min(draft_lens[i], static_cast<int32_t>(slot.history.size()) - slot.draft_length);
  }
};

// Views over `bytes`, which must be 8-byte aligned and outlive the view. directory: triples [section id, byte offset,
// byte length]. @throws Error ERR_PROTOCOL for an unknown, repeated, missing or ill-placed section.
PlanView view_plan(int64_t step, const int32_t* directory, int64_t directory_size, const uint8_t* bytes,
                   int64_t num_bytes);

// Checks the sizes of a plan's sections and its block copies. @throws Error ERR_PLAN.
void check_shapes(const PlanView& plan, const ProgramSpec& program);
// Checks every index of a plan whose slots have been admitted. `draft` is null if none is loaded. A slot of uncertain
// length needs room for its greatest possible length. @throws Error ERR_PLAN naming the first value out of range.
void check_plan(const PlanView& plan, const ProgramSpec& program, const ProgramSpec* draft, const BoundsOf& bounds_of);

// For slots whose state is known: check_shapes, admit_slots, then check_plan. @throws Error ERR_PLAN.
void admit_and_check(const PlanView& plan, const ProgramSpec& program, const ProgramSpec* draft, SlotTable& slots);

}  // namespace nds
