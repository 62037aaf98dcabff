// A rank's share of a model on the CPU: buffers, and the loop that runs the operators of a step.
#pragma once
#include <atomic>
#include <exception>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "core/arena.h"
#include "core/backend.h"
#include "core/memory.h"
#include "cpu/cpu_weights.h"
#include "cpu/kernels.h"
#include "cpu/thread_pool.h"

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

// A row of which log-probabilities are wanted.
struct LogprobRow {
  int logit_row;
  int32_t token;  // -1 = the one that is sampled from this row
  int num_likeliest;
  int64_t offset;  // of its entries in the result
};

// What one step derives from its plan before the first operator.
struct StepState {
  const PlanView* plan = nullptr;
  StepResult* result = nullptr;
  std::vector<int32_t> token_ids;   // [num_tokens] with -1 replaced by the slot's newest token
  std::vector<int32_t> positions;   // [num_tokens]
  std::vector<int64_t> kv_slots;    // [num_tokens]
  std::vector<int64_t> begun_runs;  // byte offset in the pool of each run to be cleared, in the first tile of its block
  std::vector<int32_t> row_seq;     // [num_logit_rows] sequence of each logit row
  std::vector<int32_t> sampled;     // [num_logit_rows] token of each row to sample
  std::vector<uint8_t> edited;      // [num_logit_rows] whether sampling reads logits edited by process_logits
  std::vector<LogprobRow> logprob_rows;
};

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const BackendOptions& options);

  LoadReport load(ProgramSpec program) override;
  StepResult run(const PlanView& plan) override;
  void abort() override;

 private:
  void allocate_kv();
  void allocate_scratch();
  void plan_partials();
  void exchange_layout();

  void prepare(const PlanView& plan, StepResult& result);
  void prepare_logit_rows(const PlanView& plan, StepResult& result);
  void commit(const PlanView& plan, StepResult& result);
  void count_exchange(StepResult& result);
  // Notes an operator that ends now; returns when that is.
  double trace_event(int op, double start_seconds);
  // Runs on every thread; returns early on all of them when one failed.
  void run_ops(int tid);
  void run_op(const OpSpec& op, int tid);
  void copy_blocks(int tid);
  void find_begun_runs(const PlanView& plan);
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
  SampleParams sample_params(int logit_row) const;
  LogitRowKind kind_of(int logit_row) const {
    return static_cast<LogitRowKind>(step_.plan->logit_row_kinds[logit_row]);
  }
  const Slot& slot_of(int logit_row) const { return slots_[step_.plan->slots[step_.row_seq[logit_row]]]; }
  // Output tokens of the row's sequence up to the row.
  int num_output_at(int logit_row) const;
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

  const BackendOptions options_;
  const Kernels& kernels_;
  ThreadPool pool_;
  std::unique_ptr<comm::Communicator> comm_;

  ProgramSpec program_;
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

  // Of every rank: rows of the embedding, and of the LM head.
  std::vector<int32_t> table_first_row_, table_num_rows_, head_num_ids_;
  std::vector<int32_t> owners_;  // [num_tokens]
  SlotTable slots_;
  StepState step_;
  static constexpr int kNoOp = INT32_MAX;
  int running_op_ = 0;  // of thread 0
  std::atomic<int> failed_op_{kNoOp};
  std::exception_ptr failure_;
};

}  // namespace nds::cpu
