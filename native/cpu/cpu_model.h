// A rank's share of a model on the CPU: weights, KV cache, buffers, and the operators that run over them.
#pragma once
#include <atomic>
#include <exception>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "comm/vocab_layout.h"
#include "core/backend.h"
#include "core/memory.h"
#include "core/program/arena.h"
#include "cpu/cpu_weights.h"
#include "cpu/kernels.h"
#include "cpu/thread_pool.h"
#include "step/pass.h"

namespace nds::cpu {

// A value of the running step.
struct Matrix {
  uint8_t* data = nullptr;
  int rows = 0;
  int width = 0;
  int64_t ld = 0;
  float* f32() const { return reinterpret_cast<float*>(data); }
};

// Elements from one row of a value to the next. Activations keep clear of powers of two, where rows would share cache
// sets.
inline int64_t row_stride(const ValueSpec& spec) {
  const int64_t ld = (spec.width + 31) / 32 * 32;
  return spec.activation && ld / 32 % 2 == 0 ? ld + 32 : ld;
}

// How the partial sums of a value become one sum: which ranks hold how many, and in what order they are added.
struct PartialSums {
  std::vector<int> num_roots;   // [world_size]
  std::vector<uint8_t> merges;  // over the roots of all ranks, in rank order
};

// Operators of a draft are numbered after those of the model that it drafts for.
struct ModelPlace {
  int rank = 0, world_size = 1;
  bool trace = false;
  int first_op = 0;
};

class CpuModel {
 public:
  // Loads: maps, slices and packs the weights, and allocates KV and scratch. The ranks of `comm` meet inside.
  CpuModel(const ModelPlace& place, const Kernels& kernels, ThreadPool& pool, comm::Communicator& comm,
           ProgramSpec program);

  const ProgramSpec& program() const { return program_; }
  LoadReport report() const;
  // Runs the operators over a pass on all threads; tokens, logits and log-probabilities go to the pass and to the
  // result. @throws Error what failed first; the model must not be used again.
  void run(Pass& pass, StepResult& result);
  // Adds what the communicator did since the last call.
  void count_exchange(StepResult& result);
  // Notes an operator that ends now; returns when that is.
  double trace_event(int op, double start_seconds, StepResult& result);

 private:
  void allocate_kv();
  void allocate_scratch();
  void plan_partials();

  // Runs on every thread; returns early on all of them when one failed.
  void run_ops(int tid);
  void run_op(const OpSpec& op, int tid);
  void copy_blocks(int tid);
  void find_begun_runs();
  void clear_begun_runs(int tid);

  void embedding(const OpSpec& op, int tid);
  void linear(const OpSpec& op, int tid);
  void all_reduce(const OpSpec& op, int tid);
  void rope_and_store(const OpSpec& op, int tid);
  void paged_attention(const OpSpec& op, int tid);
  void gather_rows(const OpSpec& op, int tid);
  void sample(const OpSpec& op, int tid);
  void sample_local(const OpSpec& op, int tid);
  void sample_exchange(const OpSpec& op);
  Candidate sample_whole_row(const OpSpec& op, int logit_row);
  SampleParams sample_params(const LogitRow& row) const;
  // Whether a row takes part in a rule that needs whole distributions: a draft that is drawn, or a row beside drafts.
  bool is_judged(const LogitRow& row) const;
  KeptDistribution distribution_of(const OpSpec& op, int logit_row);
  // Draws drafts, and notes what from; how many drafts of each sequence stay; which rows report log-probabilities.
  void propose(const OpSpec& op);
  void accept_coupled();
  void accept_judged(const OpSpec& op);
  void place_logprobs();
  const SlotParams& params_of(const LogitRow& row) const { return pass_->seqs[row.seq].slot->params; }
  bool is_filtered(const LogitRow& row) const { return !pass_->is_greedy && params_of(row).filtered(); }
  // Likeliest tokens that a row reports; -1 = no log-probabilities.
  int num_logprobs_of(const LogitRow& row) const {
    if (row.kind == LogitRowKind::give_back) return -1;
    return row.kind == LogitRowKind::sample ? params_of(row).num_logprobs : params_of(row).num_prompt_logprobs;
  }
  // Tokens between the history of the row's sequence and the row.
  Span<int32_t> drafts_before(const LogitRow& row) const;
  // Output tokens of the row's sequence up to the row.
  int num_output_at(const LogitRow& row) const {
    return pass_->positions[row.row] + 1 - params_of(row).num_prompt_tokens;
  }
  // This rank's logits of a row as sampling sees them.
  float* row_to_sample(const OpSpec& op, int logit_row) const;
  // One row [limit] of all ranks, of which this one has `local`: ids below `limit`, ascending.
  const float* gather_row(const float* local, int limit);
  void log_probabilities(const OpSpec& op, int tid);
  void log_probabilities_of(const LogprobRow& row, const float* logits);

  // Runs body on thread 0 and remembers what it throws, and where; the barrier after the operator tells the others.
  template <typename Body>
  void on_first_thread(int tid, Body body) {
    if (tid != 0) return;
    try {
      body();
    } catch (...) {
      failure_ = std::current_exception();
      failed_op_ = running_op_;
    }
  }

  Matrix value(int id) const;
  KvView kv_view(int layer) const;
  int num_threads() const { return pool_.size(); }

  const ModelPlace place_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  comm::Communicator& comm_;
  const ProgramSpec program_;

  std::unique_ptr<CpuWeights> weights_;
  HugeMemory kv_;
  int64_t kv_layer_bytes_ = 0;  // of one block
  KvView kv_shape_;
  HugeMemory arena_;
  ArenaPlan arena_plan_;
  std::vector<PartialSums> partials_;  // [num_values]; num_roots is empty where a value is no partial sum
  HugeMemory scratch_;                 // rope tables, attention, sampling
  std::vector<float*> rope_cos_, rope_sin_;
  uint8_t* attention_scratch_ = nullptr;
  HugeMemory edited_;  // logits of this rank, of which only edited rows are ever touched
  std::vector<uint8_t> filter_scratch_;
  std::vector<float> full_row_;
  std::vector<Candidate> candidates_;  // [num_logit_rows, num_threads], then one per row
  std::vector<Candidate> all_candidates_;

  comm::VocabLayout layout_;
  std::vector<int32_t> owners_;  // [num_tokens]
  Pass* pass_ = nullptr;
  StepResult* result_ = nullptr;
  bool reports_logprobs_ = false;
  static constexpr int kNoOp = INT32_MAX;
  int running_op_ = 0;  // of thread 0
  std::atomic<int> failed_op_{kNoOp};
  std::exception_ptr failure_;
};

}  // namespace nds::cpu
