// From logits to tokens on the device: the transform of sampling parameters, draws, accept rules, log-probabilities.
// Integer for integer what step/process_logits.cc, sample*.isa.cc, accept.isa.cc and log_probabilities.isa.cc compute
// from the same logits (random words, masses, cuts, ties), so that one reference serves both. See kernels.h for
// conventions.
#pragma once
#include <cstdint>

#include "cuda/device.h"
#include "cuda/slots.h"

namespace nds::cuda {

struct Candidate {
  float value;
  int32_t id;  // -1 = none
};

// What all of the following look at.
struct SamplingBatch {
  const LogitRow* rows;  // [num_rows]; padding rows have row = -1 and are left alone by every kernel
  int num_rows;          // host-side bound
  const DeviceSlot* slots;
  const int32_t* token_ids;  // of the pass: drafts lie here
  bool is_greedy;            // rows sample their largest logit, whatever the slots say
};

// edited [num_rows, ld] = logits of this rank's ids first_id … first_id + num_ids - 1, edited as process_logits has it,
// for rows of kind sample; a row that nothing edits is copied. edited may be logits (in place).
struct ProcessLogitsArgs {
  SamplingBatch batch;
  const float* logits;
  float* edited;
  int64_t ld;
  int first_id, num_ids;
};
void process_logits(const ProcessLogitsArgs& args, cudaStream_t stream);

// candidates[row] = the best of this rank's drawable ids for rows of kind sample without filters (arg-max, or with the
// noise of their address); {-inf, -1} where there is none. Rows with filters are left to sample_filtered.
struct SampleArgs {
  SamplingBatch batch;
  const float* logits;  // edited
  int64_t ld;
  int first_id, num_ids;  // of this rank, those that may be drawn (below sample_vocab_size)
  Candidate* partials;    // [num_rows, kSampleSplits]
  Candidate* candidates;  // [num_rows]
};
constexpr int kSampleSplits = 32;
void sample(const SampleArgs& args, cudaStream_t stream);

// The same for rows with filters, over whole rows [num_ids] of all ranks, ids from 0.
struct SampleFilteredArgs {
  SamplingBatch batch;
  const float* logits;
  int64_t ld;
  int num_ids;
  Candidate* candidates;  // [num_rows]
};
void sample_filtered(const SampleFilteredArgs& args, cudaStream_t stream);

// tokens[row] = id of the best of the world_size candidates of each row, in rank order (ties go to the lowest id).
struct ChooseArgs {
  SamplingBatch batch;
  const Candidate* candidates;  // [world_size, num_rows]
  int world_size;
  int32_t* tokens;  // [num_rows]
};
void choose(const ChooseArgs& args, cudaStream_t stream);

// Log-probabilities of raw whole rows [vocab_size]: for every row r that is no padding, is of kind sample or
// prompt_logprobs and whose slot asks for them, entry r: ids [ld_out], logprobs [ld_out] (the token first, tokens[r] or
// the row's target, then the n likeliest below num_drawable), and ranks[r]. Other rows are left alone. n < ld_out.
struct LogprobArgs {
  SamplingBatch batch;
  const float* logits;
  int64_t ld;
  int vocab_size, num_drawable;
  const int32_t* tokens;  // [num_rows]
  int ld_out;
  int32_t* ids;
  float* logprobs;
  int32_t* ranks;
};
void log_probabilities(const LogprobArgs& args, cudaStream_t stream);

// ---- accept rules standard and block --------------------------------------------------------------------------------

// The distribution that temperature and filters leave of a whole row, as dense masses: masses[i] [num_ids] (0 = not
// there) and its total. For the rows listed; distribution i goes to place i, or to places[i].
struct DistributionArgs {
  SamplingBatch batch;
  const float* logits;  // edited
  int64_t ld;
  int num_ids;
  const int32_t* listed;  // [num_listed] indices of logit rows
  int num_listed;
  uint64_t* masses;                 // [num_places, num_ids]
  uint64_t* totals;                 // [num_places]; 0 where no logit is a number
  const int32_t* places = nullptr;  // [num_listed] or null
};
void distribution(const DistributionArgs& args, cudaStream_t stream);

// tokens[i] drawn from distribution i with the noise of stream `draft` at (position of the listed row, round).
struct DrawArgs {
  SamplingBatch batch;
  const int32_t* listed;
  int num_listed;
  const uint64_t* masses;
  const uint64_t* totals;
  int num_ids;
  const int32_t* rounds;            // [num_listed]
  int32_t* tokens;                  // [num_listed]; -1 where it is empty
  const int32_t* places = nullptr;  // as in DistributionArgs
};
void draw(const DrawArgs& args, cudaStream_t stream);

// One sequence's round a block. p: distributions of the target's K + 1 rows; q: of the draft's K, or null where drafts
// were not drawn (each is then the one id with all the mass).
struct Round {
  int32_t slot;
  int32_t num_drafts;
  int32_t first_draft;       // in SamplingBatch::token_ids
  int32_t position;          // absolute, of the first draft
  const uint64_t* p_masses;  // [K + 1, num_ids]
  const uint64_t* p_totals;  // [K + 1]
  const uint64_t* q_masses;  // [K, num_ids] or null
  const uint64_t* q_totals;
};
struct AcceptArgs {
  const DeviceSlot* slots;
  const int32_t* token_ids;
  bool is_block_rule;   // else standard
  const Round* rounds;  // [num_rounds]
  int num_rounds;
  int num_ids;
  int32_t* num_accepted;  // [num_rounds]
  int32_t* tokens;        // [num_rounds] the token after them
};
void accept_drafts(const AcceptArgs& args, cudaStream_t stream);

}  // namespace nds::cuda
