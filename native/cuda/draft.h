// The draft model's part of a step on the device: it takes in tokens that it has not cached, then proposes drafts token
// by token. See kernels.h for conventions.
#pragma once
#include <cstdint>

#include "cuda/device.h"
#include "cuda/sampling.h"
#include "cuda/slots.h"
#include "cuda/step.h"

namespace nds::cuda {

// Proposals of a plan's sequences: draft j of sequence i is proposals[i * kMaxPlanDrafts + j].

// A sequence of the plan for which the draft model proposes.
struct DraftSeq {
  int32_t seq;  // of the plan
  int32_t slot;
  int32_t num_drafts;
  int32_t first_block, num_blocks;  // its table in PassInputs::block_tables
  int32_t first_place;              // place of the distribution of its first draft
};

// Arrays at fixed addresses. prepare_draft fills them from the plan, so that the passes after it read no plan: a graph
// of those passes serves every plan.
struct DraftState {
  int32_t* num_drafting;  // [1]
  DraftSeq* drafting;     // [max_seqs] in order of the plan
  // Of the newest pass.
  int32_t* slots;        // [max_seqs] of each sequence
  int32_t* draw_rounds;  // [max_logit_rows] position of the first draft of each row's round
  int32_t* places;       // [max_logit_rows] place of the distribution of each row
};

// What a pass is made of and for. Its logit rows are those of the sequences that draft, in order.
struct DraftPass {
  int padded_tokens, padded_logit_rows;
  int block_size, vocab_size;  // of the draft
  DeviceSlot* slot_table;
  int32_t* proposals;
  PassInputs inputs;
  DraftState state;
  unsigned long long* fault;
};

// Pass 0 takes in up to draft_lens[seq] tokens of each sequence, those of its history that the draft model has not
// cached, and samples after them where drafts are wanted. Sequences without tokens are left out: the pass has
// inputs.num_seqs[0] sequences, in order.
struct PrepareDraftArgs {
  DraftPass pass;
  const int32_t* slots;          // [num_seqs] of the plan
  const int32_t* token_ids;      // of the plan
  const int32_t* cu_query_lens;  // of the plan
  const int32_t* num_drafts;     // [num_seqs] or null
  const int32_t* draft_lens;     // [num_seqs]
  const int32_t* block_tables;   // of the draft
  const int32_t* cu_blocks;      // [num_seqs + 1]
  int num_seqs, num_blocks;
};
void prepare_draft(const PrepareDraftArgs& args, cudaStream_t stream);

// Pass j > 0 takes in draft j - 1 of each sequence that wants more than j drafts, and samples after it.
struct AdvanceDraftArgs {
  DraftPass pass;
  int index;         // j
  int max_drafting;  // bound of state.num_drafting[0]
};
void advance_draft(const AdvanceDraftArgs& args, cudaStream_t stream);

// Stores the tokens of pass j as drafts j, and adds the tokens that each sequence took in to its slot's draft_length.
struct CommitDraftArgs {
  DraftPass pass;
  const int32_t* tokens;  // [padded_logit_rows] sampled
  int index;              // j
  int max_seqs;           // of the pass
};
void commit_draft(const CommitDraftArgs& args, cudaStream_t stream);

// The rounds that accept_drafts judges, one for each listed sequence of the plan.
struct PrepareRoundsArgs {
  const int32_t* seqs;      // [num_rounds] of the plan
  const int32_t* p_places;  // [num_rounds] place of the first distribution p of the round
  const int32_t* q_places;  // [num_rounds] place of its first q; -1 = its drafts were not drawn
  int num_rounds, num_ids;
  const LogitRow* rows;
  const int32_t* first_samples;  // [num_seqs]
  const uint64_t *p_masses, *p_totals, *q_masses, *q_totals;
  Round* rounds;          // [num_rounds]
  int32_t* num_accepted;  // [num_seqs] set to -1
  int num_seqs;
};
void prepare_rounds(const PrepareRoundsArgs& args, cudaStream_t stream);

// Hands the results of accept_drafts to commit: the tokens of the rows of each round, and num_accepted of its sequence.
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
