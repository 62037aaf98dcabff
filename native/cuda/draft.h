// The draft's part of a step on the device: it takes in what it has not seen, then proposes token by token. See
// kernels.h for conventions.
#pragma once
#include <cstdint>

#include "cuda/device.h"
#include "cuda/sampling.h"
#include "cuda/slots.h"
#include "cuda/step.h"

namespace nds::cuda {

// Proposals of a plan's sequences: draft j of sequence i is proposals[i * kMaxPlanDrafts + j].

// Pass 0 takes in, of every sequence with draft_lens, what the draft has not seen of its history, at most so many
// tokens, and samples after it where drafts are wanted; pass j > 0 takes draft j - 1 of every sequence that wants more
// than j. Sequences without tokens are left out: the pass has num_seqs[0] of the others, in order. Logit row k is of
// the k-th sequence that samples, which the host knows: sampling_seqs[k].
struct PrepareDraftArgs {
  const int32_t* slots;          // [num_seqs] of the plan
  const int32_t* token_ids;      // of the plan
  const int32_t* cu_query_lens;  // of the plan
  const int32_t* num_drafts;     // [num_seqs] or null
  const int32_t* draft_lens;     // [num_seqs]
  const int32_t* block_tables;   // of the draft
  const int32_t* cu_blocks;      // [num_seqs + 1]
  const int32_t* sampling_seqs;  // [num_rows]
  const int32_t* proposals;
  int num_seqs, num_rows, num_blocks;
  int pass;
  int padded_tokens, padded_logit_rows;
  int block_size, vocab_size;  // of the draft
  const DeviceSlot* slot_table;
  PassInputs out;
  int32_t* draw_rounds;  // [num_rows] position at which the round of each row began
  unsigned long long* fault;
};
void prepare_draft(const PrepareDraftArgs& args, cudaStream_t stream);

// Tokens of pass j become proposals, and the draft lengths of all sequences of the pass grow by what they took in.
struct CommitDraftArgs {
  PassInputs in;
  const int32_t*
      pass_slots;  // [in.num_seqs] slots of the pass's sequences, as prepare_draft left them in in.first_samples
  const int32_t* sampling_seqs;  // [num_rows] of the plan
  const int32_t* tokens;         // [num_rows] sampled
  int num_rows, pass;
  int max_seqs;
  DeviceSlot* slot_table;
  int32_t* proposals;
  unsigned long long* fault;
};
void commit_draft(const CommitDraftArgs& args, cudaStream_t stream);

// The rounds that accept_drafts judges, one for each listed sequence of the plan.
struct PrepareRoundsArgs {
  const int32_t* seqs;      // [num_rounds] of the plan
  const int32_t* p_places;  // [num_rounds] where the distributions of its rows begin
  const int32_t* q_places;  // [num_rounds] where those of its drafts begin; -1 = its drafts were not drawn
  int num_rounds, num_ids;
  const LogitRow* rows;
  const int32_t* first_samples;  // [num_seqs]
  const uint64_t *p_masses, *p_totals, *q_masses, *q_totals;
  Round* rounds;          // [num_rounds]
  int32_t* num_accepted;  // [num_seqs] becomes -1
  int num_seqs;
};
void prepare_rounds(const PrepareRoundsArgs& args, cudaStream_t stream);

// What accept_drafts found, as commit takes it: tokens of the rows of each round, and its sequence's num_accepted.
struct ApplyRoundsArgs {
  const int32_t* seqs;  // [num_rounds] of the plan
  int num_rounds;
  const int32_t* round_accepted;  // [num_rounds]
  const int32_t* round_tokens;    // [num_rounds]
  const int32_t* cu_query_lens;   // of the plan
  const int32_t* num_drafts;
  const int32_t* token_ids;      // of the pass
  const int32_t* first_samples;  // [num_seqs]
  int32_t* tokens;               // [num_logit_rows]
  int32_t* num_accepted;         // [num_seqs], all -1 before
  unsigned long long* fault;
};
void apply_rounds(const ApplyRoundsArgs& args, cudaStream_t stream);

}  // namespace nds::cuda
