// Work around a pass on the device: slots are loaded, a plan becomes the inputs of a pass, sampled tokens become the
// state of the slots. See kernels.h for conventions.
#pragma once
#include <cstdint>

#include "cuda/device.h"
#include "cuda/slots.h"

namespace nds::cuda {

// Faults that only the device can detect. A fault word is seq << 32 | StepFault, 0 = none; the first fault is kept.
enum class StepFault : uint32_t {
  none = 0,
  no_number = 1,  // every drawable logit of a sampled row is NaN or -inf
  no_block = 2,   // a token's position lies past the sequence's block table
  bad_token = 3,  // a token id outside the vocabulary, where the plan left it to the slot or to a draft
  lost_rank = 4,  // a rank, in place of the sequence, did not bring its partial sums in time
};

// counts [vocab_size], cleared first: counts[id] = occurrences of id in the output, | kInPrompt where the prompt has
// it.
struct CountHistoryArgs {
  uint32_t* counts;
  int vocab_size;
  const int32_t* history;
  int num_history, num_prompt_tokens;
};
void count_history(const CountHistoryArgs& args, cudaStream_t stream);

// Arrays at fixed addresses, so that captured operators can read them; `prepare` fills them for each step.
struct PassInputs {
  int32_t* num_seqs;       // [1]
  int32_t* token_ids;      // [max_tokens]
  int32_t* positions;      // [max_tokens]
  int64_t* kv_slots;       // [max_tokens]
  int32_t* cu_query_lens;  // [max_seqs + 1]
  int32_t* context_lens;   // [max_seqs]
  int32_t* slots;          // [max_seqs] of the target
  int32_t* num_drafts;     // [max_seqs] of the target
  int32_t* first_blocks;   // [max_seqs]
  int32_t* block_tables;   // [max_blocks]
  LogitRow* rows;          // [max_logit_rows]
  int32_t* row_indices;    // [max_logit_rows] row of the pass; -1 = padding
  // [max_seqs] of the target, in its results: index of the sequence's first sampled logit row; -1 = none.
  int32_t* first_samples;
};

// A plan in device memory.
struct PrepareArgs {
  const int32_t* slots;          // [num_seqs]
  const int32_t* token_ids;      // [num_tokens] as in PlanView
  const int32_t* cu_query_lens;  // [num_seqs + 1]
  const int32_t* block_tables;
  const int32_t* cu_blocks;   // [num_seqs + 1]
  const int32_t* num_drafts;  // [num_seqs] or null
  const int32_t* logit_rows;  // [num_logit_rows]
  const int32_t* logit_row_kinds;
  const int32_t* logit_row_targets;  // or null
  const int32_t* proposals;          // [max_seqs, kMaxPlanDrafts] of the draft, or null
  int num_seqs, num_tokens, num_logit_rows, num_blocks;
  int padded_tokens, padded_logit_rows;  // rows from num_tokens and num_logit_rows up to these become padding
  int block_size, vocab_size;
  const DeviceSlot* slot_table;
  PassInputs out;
  unsigned long long* fault;
};
void prepare(const PrepareArgs& args, cudaStream_t stream);

// Accepts drafts by the coupled rule, or as num_accepted says; then appends the tokens to each slot. num_tokens[seq] =
// tokens that the step added: tokens[first_samples[seq]] and those after it.
struct CommitArgs {
  int max_seqs;  // no fewer than in.num_seqs
  PassInputs in;
  const int32_t* tokens;        // [num_logit_rows] sampled
  const int32_t* num_accepted;  // [num_seqs] or null; where -1 or null, the coupled rule decides
  DeviceSlot* slot_table;
  int max_history;
  int32_t* num_tokens;  // [num_seqs]
  unsigned long long* fault;
};
void commit(const CommitArgs& args, simt::LaunchPlace place);

// out[i] = parts[r, i], with r the rank whose part of the table has token_ids[i]: the last rank with first_rows[r] <=
// token_ids[i].
struct SelectRowsArgs {
  const int32_t* token_ids;
  int rows;
  const int32_t* first_rows;  // [world_size] ascending
  int world_size;
  const float* parts;  // [world_size, rows, ld]
  int64_t ld;
  float* out;  // [rows, ld]
};
void select_rows(const SelectRowsArgs& args, cudaStream_t stream);

}  // namespace nds::cuda
