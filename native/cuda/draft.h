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

// Pass 0 takes in up to draft_lens[seq] tokens of each sequence, those of its history that the draft model has not
// cached, and samples after them where drafts are wanted. Pass j > 0 takes in draft j - 1 of each sequence that wants
// more than j drafts. Sequences without tokens are left out: the pass has out.num_seqs[0] sequences, in order. Logit
// row k is of sequence sampling_seqs[k] of the plan, which the host knows.
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
  int32_t* draw_rounds;  // [num_rows] position of the first draft of each row's round
  unsigned long long* fault;
};
void prepare_draft(const PrepareDraftArgs& args, cudaStream_t stream);

// Stores the tokens of pass j as drafts j, and adds the tokens that each sequence took in to its slot's draft_length.
struct CommitDraftArgs {
  PassInputs in;
  const int32_t* pass_slots;     // [in.num_seqs] slot of each sequence: prepare_draft writes it to first_samples
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
