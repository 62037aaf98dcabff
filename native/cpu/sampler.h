// From a pass's logits to a token for every row, and to log-probabilities, over all ranks.
#pragma once
#include <vector>

#include "comm/communicator.h"
#include "comm/vocab_layout.h"
#include "core/memory.h"
#include "core/plan/step_result.h"
#include "core/program/program.h"
#include "cpu/kernels.h"
#include "cpu/thread_pool.h"
#include "step/pass.h"

namespace nds::cpu {

// This rank's logits, which the last operator of a program samples from.
struct LocalLogits {
  const float* data = nullptr;  // [num_logit_rows, ld] of this rank's ids
  int64_t ld = 0;
  int first_id = 0, num_ids = 0;
};

class Sampler {
 public:
  // The arguments except `logits` must outlive the sampler; the logits' memory must not move.
  Sampler(const ProgramSpec& program, const LocalLogits& logits, const Kernels& kernels, ThreadPool& pool,
          comm::Communicator& comm, const comm::VocabLayout& layout);

  // On all threads: edits this rank's logits of the rows that sample, if parameters ask for it, and finds each row's
  // best.
  void sample_local(const Pass& pass, int tid);
  // On one thread, after sample_local on all: draws a token for every row as DeviceModel::run specifies.
  // @throws Error ERR_CHECKPOINT if no logit of a row is a number.
  void choose(Pass& pass, StepResult& result);
  // As in DeviceModel.
  Accepted judge(const Pass& pass, int first_row);
  void log_probabilities(const Pass& pass, StepResult& result);
  int64_t bytes() const { return static_cast<int64_t>(edited_.size()); }

 private:
  bool is_alone() const { return comm_.world_size() == 1; }
  // [world_size, num_rows] best candidate of each rank and row.
  const Candidate* gather_candidates(int num_rows);
  int32_t best_of(const Pass& pass, int logit_row, const Candidate* candidates);
  // Draws a draft from its distribution and keeps that in the proposal.
  int32_t propose(const Pass& pass, int logit_row);
  KeptDistribution distribution_of(const Pass& pass, int logit_row);
  SampleParams sample_params(const Pass& pass, const LogitRow& row) const;
  // This rank's logits of a row as sampling sees them.
  const float* row_to_sample(const Pass& pass, int logit_row) const {
    return pass.rows[logit_row].edited ? edited_row(logit_row) : logits_.data + logit_row * logits_.ld;
  }
  float* edited_row(int logit_row) const { return reinterpret_cast<float*>(edited_.data()) + logit_row * logits_.ld; }
  // Gathers a whole row [limit], ids below `limit` ascending; `local` is this rank's part. Valid until the next call.
  const float* gather_whole(const float* local, int limit);
  // Log-probabilities of a whole row [vocab_size]; returns the rank of its token by likelihood.
  int32_t log_probabilities_of(const LogprobRow& row, const float* logits, StepResult& result) const;

  const ProgramSpec& program_;
  const LocalLogits logits_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  comm::Communicator& comm_;
  const comm::VocabLayout& layout_;

  HugeMemory edited_;  // [max_num_logit_rows, ld]; only edited rows are ever touched
  std::vector<uint8_t> filter_scratch_;
  std::vector<float> whole_;             // [vocab_size]
  std::vector<Candidate> candidates_;    // [num_logit_rows, num_threads], then one per row
  std::vector<Candidate> of_all_ranks_;  // [world_size, num_logit_rows]
};

}  // namespace nds::cpu
