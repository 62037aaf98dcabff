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

  // Inside ThreadPool::run, on all threads: edits this rank's logits of the rows that sample, if parameters ask for it,
  // and finds the best of each row that needs no filters.
  void sample_local(const Pass& pass, int tid);
  // Then, like what follows on one thread outside of run, whose threads it uses: draws a token for every row as
  // DeviceModel::run specifies.
  // @throws Error ERR_CHECKPOINT if no logit of a row is a number.
  void choose(Pass& pass, StepResult& result);
  // As in DeviceModel.
  Accepted judge(const Pass& pass, int first_row);
  void log_probabilities(const Pass& pass, StepResult& result);
  int64_t bytes() const { return static_cast<int64_t>(edited_.size() + scratch_.size() + whole_.size()); }

 private:
  bool is_alone() const { return comm_.world_size() == 1; }
  // [world_size, num_rows] best candidate of each rank and row.
  const Candidate* gather_candidates(int num_rows);
  // Sets the tokens of the rows that are filtered, or drawn as drafts: those that need whole rows.
  void choose_from_whole(Pass& pass);
  // A row that is sampled as a whole.
  struct WholeRow {
    const float* local;   // this rank's part
    bool is_worth_teams;  // whether most of its time goes to passes over all ids
  };
  WholeRow whole_row(const Pass& pass, int logit_row) const;
  // Calls work(i, whole, scratch, team) for each of `rows`, i from 0, with whole [sample_vocab_size] the logits of
  // rows[i] as sampling sees them. Each thread takes whole rows; those worth a team that are left over are divided.
  template <typename Work>
  void each_whole(const std::vector<WholeRow>& rows, const Work& work);
  Team team_of(int tid) const;
  uint8_t* scratch_of(int tid) const { return scratch_.data() + tid * scratch_stride_; }
  [[noreturn]] void fail_without_numbers(const Pass& pass, const LogitRow& row) const;
  SampleParams sample_params(const Pass& pass, const LogitRow& row) const;
  // This rank's logits of a row as sampling sees them.
  const float* row_to_sample(const Pass& pass, int logit_row) const {
    return pass.rows[logit_row].edited ? edited_row(logit_row) : logits_.data + logit_row * logits_.ld;
  }
  float* edited_row(int logit_row) const { return reinterpret_cast<float*>(edited_.data()) + logit_row * logits_.ld; }
  // Gathers a whole row [limit], ids below `limit` ascending, into buffer `index`, below the number of threads; `local`
  // is this rank's part. Valid until the next call with that buffer.
  const float* gather_whole(const float* local, int limit, int index = 0);
  // Log-probabilities of a whole row [vocab_size]; returns the rank of its token by likelihood.
  int32_t log_probabilities_of(const LogprobRow& row, const float* logits, StepResult& result) const;

  const ProgramSpec& program_;
  const LocalLogits logits_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  comm::Communicator& comm_;
  const comm::VocabLayout& layout_;

  HugeMemory edited_;   // [max_num_logit_rows, ld]; only edited rows are ever touched
  HugeMemory scratch_;  // [num_threads, scratch_stride_] of filters and accept rules
  int64_t scratch_stride_ = 0;
  HugeMemory whole_;                      // [num_threads, vocab_size] fp32; empty for one rank
  std::vector<KeptDistribution> judged_;  // p of the rows of one sequence
  std::vector<Candidate> candidates_;     // [num_logit_rows, num_threads], then one per row
  std::vector<Candidate> of_all_ranks_;   // [world_size, num_logit_rows]
};

}  // namespace nds::cpu
