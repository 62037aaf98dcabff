// A rank's share of a model on a device: weights, KV cache, buffers, and the launches that run over them.
#pragma once
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "comm/vocab_layout.h"
#include "core/backend.h"
#include "core/span.h"
#include "cuda/blas.h"
#include "cuda/cuda_weights.h"
#include "cuda/exchange.h"
#include "cuda/graphs.h"
#include "cuda/kernels.h"
#include "cuda/lowering.h"
#include "cuda/memory.h"
#include "cuda/op_times.h"
#include "cuda/step.h"

namespace nds::cuda {

// What the host knows of a pass before it runs: upper bounds of what the device will find.
struct PassBounds {
  int num_tokens = 0, num_logit_rows = 0, num_seqs = 0;
  int max_query_len = 0, max_context_len = 0;
};

class CudaModel {
 public:
  // Copies weight slices to the device, allocates KV and scratch. Collective over the ranks of `comm`. deterministic:
  // all products take our own kernels, none cuBLASLt.
  CudaModel(ProgramSpec program, comm::Communicator& comm, Exchange& exchange, cudaStream_t stream, bool deterministic,
            const OnLoaded& on_loaded, const Progress& progress);

  const ProgramSpec& program() const { return program_; }
  const comm::VocabLayout& layout() const { return layout_; }
  LoadReport report() const;
  const PassInputs& inputs() const { return inputs_; }
  // Whether a pass of these bounds runs as a graph.
  bool is_captured(const PassBounds& bounds) const;
  // The bounds rounded up to a captured size where the pass runs as a graph, else unchanged: graphs exist for few
  // sizes.
  PassBounds padded(const PassBounds& bounds) const;
  // @throws Error ERR_PLAN for tables of more blocks than the input buffer holds.
  void check_tables(int64_t step, const Span<int32_t>& block_tables) const;
  void copy_blocks(const int32_t* device_pairs, int num_pairs);
  // Queues the operators from inputs() to logits(), then what `then` queues: in the same graph, where the pass is
  // captured, so it must queue the same launches for the same bounds.
  void forward(const PassBounds& padded, const std::function<void()>& then = nullptr);
  // The same, launch by launch: a caller may capture it.
  void run(const PassBounds& padded);
  // Before the first pass: times the operators, of which the trace numbers the first `first_op`. No pass is captured
  // then, and no kernel overlaps another.
  void trace_to(OpTimes& times, int first_op);
  // The sample operator, which runs outside of the model, ends here.
  void end_sampling();

  // Where the next kernel of a pass, or of its sampling, stands. It overlaps the launch before it if that is a kernel
  // of the same pass: each of those waits for the one before it, reads only weights earlier, and no pass writes
  // weights.
  LaunchPlace next_kernel() { return {stream_, std::exchange(follows_kernel_, may_overlap_)}; }
  // The stream for other work of a pass, which no kernel overlaps: copies, exchanges, cuBLASLt.
  cudaStream_t between_kernels() {
    follows_kernel_ = false;
    return stream_;
  }

  // [num_logit_rows, ld_logits] of this rank's ids.
  float* logits() const { return f32(logits_); }
  int64_t ld_logits() const { return ld(logits_); }
  int first_token_id() const { return first_token_id_; }
  int num_token_ids() const { return num_token_ids_; }

 private:
  void find_operators();
  void allocate_kv();
  void allocate_inputs();
  void allocate_values();
  void allocate_attention();
  void plan_partials();

  void end_op(int op);
  void run_launch(const Launch& launch, const PassBounds& bounds);
  void embedding(const Launch& launch, const PassBounds& bounds);
  void linear(const Launch& launch, const PassBounds& bounds);
  bool linear_by_blas(LinearArgs args);
  void all_reduce(const Launch& launch, const PassBounds& bounds);
  // out [count] = sum of partials [merges.size()][count] by the stack program `merges`, plus bias or null; none: zeros.
  void join_partials(const Launch& launch, const float* partials, const std::vector<uint8_t>& merges, const float* bias,
                     int64_t count);
  void rope_and_store(const Launch& launch, const PassBounds& bounds);
  void paged_attention(const Launch& launch, const PassBounds& bounds);
  void gather_rows(const Launch& launch, const PassBounds& bounds);
  void rms_norm(const Launch& launch, const PassBounds& bounds);
  void silu_mul(const Launch& launch, const PassBounds& bounds);
  void add(const Launch& launch, const PassBounds& bounds);

  AttentionBatch attention_batch(const PassBounds& bounds) const;
  AttentionLimits attention_limits() const;
  KvCache kv_cache(int layer) const;
  const OpSpec& op(const Launch& launch) const { return program_.ops[launch.op]; }
  uint8_t* data(int value) const { return arena_.as<>() + arena_plan_.offsets[value]; }
  float* f32(int value) const { return reinterpret_cast<float*>(data(value)); }
  int64_t ld(int value) const;
  int width(int value) const { return program_.values[value].width; }
  int rows(int value, const PassBounds& bounds) const {
    return program_.values[value].logit_rows ? bounds.num_logit_rows : bounds.num_tokens;
  }
  const float* bias(int weight) const { return weight == kNone ? nullptr : weights_->vector(weight); }

  const ProgramSpec program_;
  Exchange& exchange_;
  cudaStream_t stream_;
  const bool deterministic_;
  const Progress progress_;
  bool may_overlap_ = false;     // whether the device and its driver can overlap launches, in graphs too
  bool follows_kernel_ = false;  // whether the newest work of this pass is a kernel
  Lowered lowered_;
  comm::VocabLayout layout_;
  std::unique_ptr<CudaWeights> weights_;
  DeviceMemory kv_, arena_, input_memory_, attention_memory_, rope_memory_, gathered_, owner_edges_;
  ArenaPlan arena_plan_;
  int64_t max_table_blocks_ = 0;  // of all sequences of a pass
  PassInputs inputs_{};
  KvCache kv_shape_;
  int64_t kv_layer_bytes_ = 0;
  HeadLayout heads_;  // of every layer
  int64_t attention_plan_bytes_ = 0;
  std::vector<const float*> inv_freqs_;
  std::vector<float*> cos_, sin_, query_scales_;
  OpTimes* times_ = nullptr;  // null unless traced
  int first_op_ = 0;          // of the trace
  int sample_op_ = kNone;
  int logits_ = kNone, first_token_id_ = 0, num_token_ids_ = 0;
  // [num_values], for values that are partial sums: roots of each rank, and the stack program over all of them.
  std::vector<std::vector<int>> num_roots_;
  std::vector<std::vector<uint8_t>> merges_;
  Graphs graphs_;
  std::unique_ptr<Blas> blas_;  // null where cuBLASLt is missing or must not be used
  DeviceMemory gate_up_;        // gate and up products of cuBLASLt, before silu_mul
};

}  // namespace nds::cuda
