// A rank's share of a model on the CPU: weights, KV cache, buffers, and the operators that run over them.
#pragma once
#include <atomic>
#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "comm/vocab_layout.h"
#include "core/backend.h"
#include "core/memory.h"
#include "core/program/arena.h"
#include "core/round_up.h"
#include "cpu/cpu_weights.h"
#include "cpu/fusion.h"
#include "cpu/kernels.h"
#include "cpu/sampler.h"
#include "cpu/thread_pool.h"
#include "step/device_model.h"
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

// Row stride of a value, in elements. Activations avoid powers of two, at which rows would share cache sets.
inline int64_t row_stride(const ValueSpec& spec) {
  const int64_t ld = round_up(spec.width, 32);
  return spec.activation && ld / 32 % 2 == 0 ? ld + 32 : ld;
}

// How the partial sums of a value join: number per rank, and the order of addition.
struct PartialSums {
  std::vector<int> num_roots;   // [world_size]
  std::vector<uint8_t> merges;  // over the roots of all ranks, in rank order
};

class CpuModel final : public DeviceModel {
 public:
  // Maps, slices and packs the weights, and allocates KV and scratch. Collective over the ranks of `comm`.
  CpuModel(ProgramSpec program, const Kernels& kernels, ThreadPool& pool, comm::Communicator& comm,
           const OpTrace& trace, const OnLoaded& on_loaded, const OnBegun& on_begun);

  const ProgramSpec& program() const override { return program_; }
  LoadReport report() const override;
  void run(Pass& pass, StepResult& result) override;
  Accepted judge(const Pass& pass, int first_row) override { return sampler_->judge(pass, first_row); }
  void log_probabilities(const Pass& pass, StepResult& result) override { sampler_->log_probabilities(pass, result); }

 private:
  void allocate_kv();
  void allocate_scratch();
  void make_sampler();
  void plan_partials();
  int64_t plan_quantized();
  void quantize_rows(const Matrix& x, const PackedLinear& w, uint8_t* out, int tid, int num_threads);

  // An operator, or what of it has to be whole on all threads before the rest begins.
  struct Task {
    int op;
    void (CpuModel::*part)(const OpSpec& op, int tid);  // tid: the index of the part, whichever thread does it
  };
  // Tasks [begin, end) that each part runs one after the other, without waiting for other parts.
  struct Stage {
    size_t begin, end;
  };
  void plan_stages();
  void add_tasks(int op);
  void add_task(Task task, bool joins = false);
  void run_part(const Stage& stage, int tid);
  void end_stage(size_t index);
  void enter_op(const OpSpec& op);
  void start_pass(const OpSpec& op, int tid);
  void copy_blocks(const OpSpec& op, int tid);
  void find_begun_runs();
  void clear_begun_runs(int tid);

  void embedding(const OpSpec& op, int tid);
  void exchange_rows(const OpSpec& op, int tid);
  void rms_norm(const OpSpec& op, int tid);
  void quantize(const OpSpec& op, int tid);
  LinearArgs linear_args(const OpSpec& op, int tid);
  void linear(const OpSpec& op, int tid);
  void linear_silu_mul(const OpSpec& op, int tid);
  void all_reduce(const OpSpec& op, int tid);
  void add_bias(const OpSpec& op, int tid);
  void head_norm(const OpSpec& op, int tid);
  void rope_and_store(const OpSpec& op, int tid);
  void paged_attention(const OpSpec& op, int tid);
  void silu_mul(const OpSpec& op, int tid);
  void add(const OpSpec& op, int tid);
  void hidden_states(const OpSpec& op, int tid);
  void gather_rows(const OpSpec& op, int tid);
  void sample(const OpSpec& op, int tid);

  // Runs body once, as the first part, and keeps its exception: the stages after it do nothing.
  template <typename Body>
  void once(int tid, Body body) {
    if (tid != 0) return;
    try {
      body();
    } catch (...) {
      failure_ = std::current_exception();
      has_failed_ = true;
    }
  }

  uint8_t* memory(int value) const { return arena_.data() + arena_plan_.offsets[fusion_.held_in[value]]; }
  Matrix value(int id) const;
  KvView kv_view(int layer) const;
  int num_threads() const { return pool_.size(); }
  // Rows of part tid, as share_of of the kernels divides them.
  std::pair<int64_t, int64_t> share_of_rows(int64_t rows, int tid) const {
    return {rows * tid / num_threads(), rows * (tid + 1) / num_threads()};
  }
  bool is_alone() const { return comm_.world_size() == 1; }

  const ProgramSpec program_;
  const Fusion fusion_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  comm::Communicator& comm_;
  const OpTrace trace_;
  const OnBegun on_begun_;

  std::unique_ptr<CpuWeights> weights_;
  HugeMemory kv_;
  int64_t kv_layer_bytes_ = 0;  // per block
  KvView kv_shape_;
  HugeMemory arena_;
  ArenaPlan arena_plan_;
  std::vector<PartialSums> partials_;  // [num_values]; num_roots is empty if the value is no partial sum
  HugeMemory scratch_;                 // rope tables, attention, quantized activations, decoded weights
  std::vector<float*> rope_cos_, rope_sin_;
  uint8_t* attention_scratch_ = nullptr;
  uint8_t* linear_scratch_ = nullptr;
  uint8_t* quantized_ = nullptr;     // of all threads
  int64_t own_quantized_bytes_ = 0;  // of a part's own rows in it

  comm::VocabLayout layout_;
  std::unique_ptr<Sampler> sampler_;  // set if the program samples
  std::vector<int32_t> owners_;       // [num_tokens]
  Pass* pass_ = nullptr;              // the running one
  // Byte offset in the pool of each run to clear, in the first tile of its block.
  std::vector<int64_t> begun_runs_;
  StepResult* result_ = nullptr;
  // Max rows of an input that each part quantizes for itself: that takes less than a stage of its own.
  static constexpr int kOwnRows = 8;
  // Of the running pass.
  std::vector<Task> tasks_;
  std::vector<Stage> stages_;
  double op_start_ = 0;  // seconds, with a trace
  std::atomic<bool> has_failed_{false};
  std::exception_ptr failure_;
};

}  // namespace nds::cpu
