// From logits to tokens on the device: edits by sampling parameters, draws, accept rules, log-probabilities. Random
// words, masses, cuts and ties equal those of step/process_logits.cc, sample*.isa.cc, accept.isa.cc and
// log_probabilities.isa.cc for the same logits, so that one reference serves both. See kernels.h for conventions.
#pragma once
#include <cstdint>

#include "cuda/device.h"
#include "cuda/slots.h"

namespace nds::cuda {

using simt::LaunchPlace;

struct Candidate {
  float value;
  int32_t id;  // -1 = none
};

// Inputs that all sampling kernels share.
struct SamplingBatch {
  const LogitRow* rows;  // [num_rows]; row = -1 marks padding, whose logits are not read
  int num_rows;          // padding included
  const DeviceSlot* slots;
  const int32_t* token_ids;  // drafts of the rows, at LogitRow::first_draft
  bool is_greedy;            // temperature 0 and no filters, whatever the slots say
};

// For rows of kind sample: edited [num_rows, ld] = logits of this rank's ids [first_id, first_id + num_ids), edited as
// in step/process_logits.h. A row without edits is copied. edited may be logits (in place).
struct ProcessLogitsArgs {
  SamplingBatch batch;
  const float* logits;
  float* edited;
  int64_t ld;
  int first_id, num_ids;
};
void process_logits(const ProcessLogitsArgs& args, cudaStream_t stream);

// For rows of kind sample without filters: candidates[row] = this rank's best drawable id, by logit at temperature 0,
// else by logit / temperature + Gumbel noise. {-inf, -1} where no id is drawable, and for all other rows.
struct SampleArgs {
  SamplingBatch batch;
  const float* logits;  // edited
  int64_t ld;
  int first_id, num_ids;      // this rank's drawable ids, i.e. below sample_vocab_size
  Candidate* partials;        // [num_rows, kSampleSplits]
  Candidate* candidates;      // [num_rows]
  int32_t* tokens = nullptr;  // [num_rows] ids of the candidates, or null
};
constexpr int kSampleSplits = 32;
// Two launches, at `place` and at `then`.
void sample(const SampleArgs& args, LaunchPlace place, LaunchPlace then);

// The same for rows with filters (top-k, top-p, min-p), over whole rows [num_ids] of all ranks, ids from 0. Other rows
// of candidates stay unchanged.
struct SampleFilteredArgs {
  SamplingBatch batch;
  const float* logits;
  int64_t ld;
  int num_ids;
  Candidate* candidates;  // [num_rows]
};
void sample_filtered(const SampleFilteredArgs& args, cudaStream_t stream);

// tokens[row] = id of the best candidate over the ranks, the lowest id on a tie; -1 = none.
struct ChooseArgs {
  SamplingBatch batch;
  const Candidate* candidates;  // [world_size, num_rows]
  int world_size;
  int32_t* tokens;  // [num_rows]
};
void choose(const ChooseArgs& args, LaunchPlace place);

// Log-probabilities from raw whole rows [vocab_size], for rows r of kind sample or prompt_logprobs with entries in ids
// and logprobs [cu_entries[num_rows]]: the token (tokens[r], or the target of the row), then the n likeliest ids below
// num_drawable, 0 <= n <= num_drawable; ranks[r] is the rank of the token. Ranks of other rows stay unchanged.
struct LogprobArgs {
  SamplingBatch batch;
  const float* logits;
  int64_t ld;
  int vocab_size, num_drawable;
  const int32_t* tokens;      // [num_rows]
  const int32_t* cu_entries;  // [num_rows + 1] prefix sums of 1 + n; a row without entries reports nothing
  int32_t* ids;
  float* logprobs;
  int32_t* ranks;
};
void log_probabilities(const LogprobArgs& args, cudaStream_t stream);

// The distribution of each listed row after temperature and filters, as dense masses: masses[i] [num_ids], 0 =
// excluded, with sum totals[i]. Distribution i goes to place i, or to places[i].
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

// tokens[i] = a draw from distribution i, with the noise of stream `draft` at (position of the listed row, rounds[i]).
struct DrawArgs {
  SamplingBatch batch;
  const int32_t* listed;
  int num_listed;
  const uint64_t* masses;
  const uint64_t* totals;
  int num_ids;
  const int32_t* rounds;            // [num_listed]
  int32_t* tokens;                  // [num_listed]; -1 where the distribution is empty
  const int32_t* places = nullptr;  // as in DistributionArgs
};
void draw(const DrawArgs& args, cudaStream_t stream);

// The drafts of one sequence, which a block judges. p: distributions of the target's K + 1 rows. q: distributions of
// the K drafts, or null where drafts were not drawn: then all mass of q is on the draft's id.
struct Round {
  int32_t slot;
  int32_t num_drafts;
  int32_t first_draft;       // index in AcceptArgs::token_ids
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
  int32_t* tokens;        // [num_rounds] the token after the accepted drafts
};
void accept_drafts(const AcceptArgs& args, cudaStream_t stream);

}  // namespace nds::cuda
