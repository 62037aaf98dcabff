// What happens on the device around a pass: slots are loaded, a plan becomes the inputs of a pass, and what the pass
// sampled becomes the state of the slots. See kernels.h for conventions.
#pragma once
#include <cstdint>

#include "cuda/device.h"
#include "cuda/slots.h"

namespace nds::cuda {

// A fault that only the device can see, as the low half of a word whose high half is the sequence; 0 = none. The first
// one stays.
enum class StepFault : uint32_t {
  none = 0,
  no_number = 1,  // no logit of a row that is sampled is a number
  no_block = 2,   // a token's position has no block: the plan has room for fewer tokens than the slot holds
  bad_token = 3,  // a token id outside the vocabulary, where the plan left it to the slot or to a draft
};

// counts[id] of a slot's prompt and output, from its history. counts [vocab_size] is cleared first.
struct CountHistoryArgs {
  uint32_t* counts;
  int vocab_size;
  const int32_t* history;
  int num_history, num_prompt_tokens;
};
void count_history(const CountHistoryArgs& args, cudaStream_t stream);

// The fixed arrays that operators read, filled by `prepare` for every step.
struct PassInputs {
  int32_t* num_seqs;       // [1]
  int32_t* token_ids;      // [max_tokens]
  int32_t* positions;      // [max_tokens]
  int64_t* kv_slots;       // [max_tokens]
  int32_t* cu_query_lens;  // [max_seqs + 1]
  int32_t* context_lens;   // [max_seqs]
  int32_t* first_blocks;   // [max_seqs]
  int32_t* block_tables;   // [max_blocks]
  LogitRow* rows;          // [max_logit_rows]
  int32_t* row_indices;    // [max_logit_rows] of the pass; -1 = padding
  int32_t* first_samples;  // [max_seqs] first row of the sequence that samples, among logit rows; -1 = none
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
  int padded_tokens, padded_logit_rows;  // up to these, padding is written
  int block_size, vocab_size;
  const DeviceSlot* slot_table;
  PassInputs out;
  unsigned long long* fault;
};
void prepare(const PrepareArgs& args, cudaStream_t stream);

// Accepts drafts by the coupled rule (num_accepted null), or as another rule has found; then every slot takes its
// tokens. num_tokens[seq] = tokens that the step added; they are tokens[first_samples[seq] …].
struct CommitArgs {
  const int32_t* slots;
  const int32_t* cu_query_lens;
  const int32_t* num_drafts;  // or null
  int num_seqs;
  PassInputs in;
  const int32_t* tokens;        // [num_logit_rows] sampled
  const int32_t* num_accepted;  // [num_seqs]; -1 = decide here; or null
  DeviceSlot* slot_table;
  int max_history;
  int32_t* num_tokens;  // [num_seqs]
  unsigned long long* fault;
};
void commit(const CommitArgs& args, cudaStream_t stream);

// out[i] = row i of the part of the rank that has token_ids[i]'s embedding: the last whose first row is not behind it.
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
