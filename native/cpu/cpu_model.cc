// Loads a model on the CPU: weights, KV pool, scratch, and the layouts that the ranks exchange once.
#include "cpu/cpu_model.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/program/program_check.h"
#include "core/program/reduction_tree.h"
#include "core/round_up.h"

namespace nds::cpu {
CpuModel::CpuModel(ProgramSpec program, const Kernels& kernels, ThreadPool& pool, comm::Communicator& comm,
                   const OpTrace& trace, const OnLoaded& on_loaded, const OnBegun& on_begun)
    : program_(std::move(program)),
      fusion_(find_fusion(program_, comm.world_size() == 1)),
      kernels_(kernels),
      pool_(pool),
      comm_(comm),
      trace_(trace),
      on_begun_(on_begun) {
  check_program(program_);
  weights_ = std::make_unique<CpuWeights>(program_, kernels_, pool_, on_loaded);
  plan_partials();
  allocate_kv();
  allocate_scratch();
  layout_ = comm::exchange_vocab_layout(program_, comm_);
  make_sampler();
}

LoadReport CpuModel::report() const {
  return {weights_->bytes(), static_cast<int64_t>(kv_.size()),
          static_cast<int64_t>(arena_.size() + scratch_.size()) + (sampler_ == nullptr ? 0 : sampler_->bytes()),
          weights_->file_bytes(), weights_->notice()};
}

void CpuModel::plan_partials() {
  partials_.assign(program_.values.size(), {});
  for (const OpSpec& op : program_.ops) {
    if (op.kind != OpKind::linear || !op.partial) continue;
    const WeightSpec& spec = program_.weights[op.weight];
    const int num_chunks = spec.num_chunks, rank = comm_.rank(), world_size = comm_.world_size();
    const int64_t first_chunk = int64_t{rank} * num_chunks / world_size;
    const int64_t next_chunk = (int64_t{rank} + 1) * num_chunks / world_size;
    if (spec.first_chunk != first_chunk ||
        static_cast<int64_t>(spec.chunk_edges.size()) - 1 != next_chunk - first_chunk) {
      throw Error("ERR_INTERNAL", "Expected chunks " + std::to_string(first_chunk) + " to " +
                                      std::to_string(next_chunk) + " for " + spec.pieces[0].name);
    }
    PartialSums& sums = partials_[op.out];
    for (int r = 0; r < world_size; r++) sums.num_roots.push_back(rank_num_roots(num_chunks, world_size, r));
    sums.merges = join_merges(num_chunks, world_size);
  }
}

void CpuModel::allocate_kv() {
  kv_shape_ = plan_kv(program_.kv, program_.dtype);
  kv_layer_bytes_ = kv_shape_.tile_bytes * kv_shape_.num_kv_heads;
  kv_ = HugeMemory(static_cast<size_t>(kv_shape_.block_stride * kv_shape_.num_blocks), "the KV cache");
}

void CpuModel::allocate_scratch() {
  const int64_t activation_size = static_cast<int64_t>(dtype_size(program_.dtype));
  std::vector<int64_t> sizes;
  for (size_t v = 0; v < program_.values.size(); v++) {
    const ValueSpec& spec = program_.values[v];
    const int64_t rows = spec.logit_rows ? program_.max_num_logit_rows : program_.max_num_batched_tokens;
    const int64_t copies = partials_[v].num_roots.empty() ? 1 : partials_[v].num_roots[comm_.rank()];
    sizes.push_back(copies * rows * row_stride(spec) * (spec.activation ? activation_size : 4));
  }
  for (size_t v = 0; v < sizes.size(); v++) {
    if (fusion_.held_in[v] != static_cast<int>(v)) sizes[v] = 0;
  }
  arena_plan_ = plan_arena(fused_uses(program_, fusion_), sizes);
  arena_ = HugeMemory(static_cast<size_t>(arena_plan_.size), "activations");

  // Scratch: quantized activations, the attention scratch and decoded weights of every thread, cos and sin of every
  // token for every rope.
  const int64_t attention_bytes = kernels_.attention_scratch_bytes(kv_shape_);
  const auto table_bytes = [this](const RopeSpec& rope) {
    return round_up(int64_t{4} * program_.max_num_batched_tokens * static_cast<int64_t>(rope.inv_freq.size()), 64);
  };
  const int64_t quantized_bytes = plan_quantized();
  int64_t linear_bytes = 0;
  for (const OpSpec& op : program_.ops) {
    if (op.kind != OpKind::linear) continue;
    linear_bytes = std::max(linear_bytes, kernels_.linear_scratch_bytes(*(*weights_)[op.weight].linear));
  }
  int64_t total = quantized_bytes + (attention_bytes + linear_bytes) * num_threads();
  for (const RopeSpec& rope : program_.ropes) total += 2 * table_bytes(rope);
  scratch_ = HugeMemory(static_cast<size_t>(total), "scratch");
  quantized_ = scratch_.data();
  uint8_t* next = quantized_ + quantized_bytes;
  attention_scratch_ = next;
  next += attention_bytes * num_threads();
  linear_scratch_ = next;
  next += linear_bytes * num_threads();
  rope_cos_.clear();
  rope_sin_.clear();
  for (const RopeSpec& rope : program_.ropes) {
    const int64_t bytes = table_bytes(rope);
    rope_cos_.push_back(reinterpret_cast<float*>(next));
    rope_sin_.push_back(reinterpret_cast<float*>(next + bytes));
    next += 2 * bytes;
  }
}

// Room for all rows of the widest input, or for the few that each part quantizes for itself.
int64_t CpuModel::plan_quantized() {
  int64_t shared = 0;
  for (const OpSpec& op : program_.ops) {
    if (op.kind != OpKind::linear || !is_quantized(program_.weights[op.weight].format)) continue;
    const int64_t row_bytes = kernels_.quantized_row_bytes(*(*weights_)[op.weight].linear);
    const int64_t rows =
        program_.values[op.x].logit_rows ? program_.max_num_logit_rows : program_.max_num_batched_tokens;
    shared = std::max(shared, rows * row_bytes);
    own_quantized_bytes_ = std::max(own_quantized_bytes_, std::min<int64_t>(rows, kOwnRows) * row_bytes);
  }
  return std::max(shared, own_quantized_bytes_ * num_threads());
}

void CpuModel::make_sampler() {
  for (const OpSpec& op : program_.ops) {
    if (op.kind != OpKind::sample) continue;
    const float* const data = reinterpret_cast<float*>(memory(op.x));
    const LocalLogits logits{data, row_stride(program_.values[op.x]), op.first_token_id, op.num_token_ids};
    sampler_ = std::make_unique<Sampler>(program_, logits, kernels_, pool_, comm_, layout_);
  }
}

}  // namespace nds::cpu
