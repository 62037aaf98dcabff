// Loading a model on a device: weights, KV pool, buffers.
#include "cuda/cuda_model.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/program/program_check.h"
#include "core/program/reduction_tree.h"
#include "core/round_up.h"

namespace nds::cuda {
namespace {

// Hands out 256-byte aligned parts of one allocation. A first run from a null base yields its size.
class Carver {
 public:
  explicit Carver(uint8_t* base) : base_(base) {}
  template <typename T>
  T* take(int64_t count) {
    T* const part = reinterpret_cast<T*>(base_ + size_);
    size_ = round_up(size_ + count * static_cast<int64_t>(sizeof(T)), 256);
    return part;
  }
  int64_t size() const { return size_; }

 private:
  uint8_t* base_;
  int64_t size_ = 0;
};

constexpr int kCapturesOverlap = 12030;  // CUDA's version since which a captured graph keeps overlapping launches

bool can_overlap_launches() {
  int device = 0, major = 0, driver = 0, runtime = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  return major >= 9 && driver >= kCapturesOverlap && runtime >= kCapturesOverlap;
}

}  // namespace

CudaModel::CudaModel(ProgramSpec program, comm::Communicator& comm, Exchange& exchange, cudaStream_t stream,
                     bool deterministic, const OnLoaded& on_loaded, const Progress& progress)
    : program_(std::move(program)),
      exchange_(exchange),
      stream_(stream),
      deterministic_(deterministic),
      progress_(progress),
      graphs_(exchange, stream) {
  check_program(program_);
  may_overlap_ = can_overlap_launches();
  lowered_ = lower(program_, exchange_.world_size());
  find_operators();
  plan_partials();
  layout_ = comm::exchange_vocab_layout(program_, comm);
  weights_ = std::make_unique<CudaWeights>(program_, comm, stream_, on_loaded);
  if (!deterministic && program_.dtype == DType::bf16) blas_ = Blas::open(stream_);
  allocate_inputs();
  allocate_values();
  allocate_attention();
  allocate_kv();
}

LoadReport CudaModel::report() const {
  return {weights_->bytes(), kv_.size(),
          arena_.size() + input_memory_.size() + attention_memory_.size() + rope_memory_.size() + gathered_.size()};
}

void CudaModel::find_operators() {
  bool has_heads = false;
  for (const OpSpec& op : program_.ops) {
    if (op.kind == OpKind::sample) {
      sample_op_ = static_cast<int>(&op - program_.ops.data());
      logits_ = op.x;
      first_token_id_ = op.first_token_id;
      num_token_ids_ = op.num_token_ids;
    }
    if (op.kind != OpKind::paged_attention) continue;
    const HeadLayout& h = op.heads;
    if (has_heads && (h.num_heads != heads_.num_heads || h.group_size != heads_.group_size ||
                      h.first_head != heads_.first_head || h.num_kv_heads != heads_.num_kv_heads))
      throw Error("ERR_UNSUPPORTED", "Expected the same heads in all layers on CUDA");
    heads_ = h;
    has_heads = true;
  }
  if (logits_ == kNone || !has_heads)
    throw Error("ERR_INTERNAL", "Expected a program with attention and a sample operator");
}

void CudaModel::plan_partials() {
  const int world_size = exchange_.world_size();
  num_roots_.resize(program_.values.size());
  merges_.resize(program_.values.size());
  for (const OpSpec& op : program_.ops) {
    if (op.kind != OpKind::linear || !op.partial) continue;
    const int num_chunks = program_.weights[op.weight].num_chunks;
    for (int r = 0; r < world_size; r++) num_roots_[op.out].push_back(rank_num_roots(num_chunks, world_size, r));
    merges_[op.out] = join_merges(num_chunks, world_size);
    if (static_cast<int>(merges_[op.out].size()) > kMaxJoinInputs)
      throw Error("ERR_UNSUPPORTED", "Expected at most " + std::to_string(kMaxJoinInputs) + " partial sums on CUDA");
  }
}

void CudaModel::allocate_kv() {
  const KvSpec& spec = program_.kv;
  if (spec.dtype == KvDtype::bf16)
    throw Error("ERR_UNSUPPORTED", "Expected a KV cache of int8 or the dtype of activations on CUDA");
  KvCache& kv = kv_shape_;
  kv.dtype = program_.dtype;
  kv.kv_dtype = spec.dtype;
  kv.num_blocks = spec.num_blocks;
  kv.block_size = spec.block_size;
  kv.num_kv_heads = spec.num_kv_heads;
  kv.head_dim = spec.head_dim;
  kv.tile_bytes = round_up(2 * kv.panel_bytes() + (spec.dtype == KvDtype::int8 ? 2 * 4 * spec.block_size : 0), 16);
  kv.block_stride = kv.tile_bytes * spec.num_kv_heads;
  kv_layer_bytes_ = kv.block_stride * spec.num_blocks;
  kv_ = DeviceMemory(kv_layer_bytes_ * spec.num_layers, "the KV cache");
}

KvCache CudaModel::kv_cache(int layer) const {
  KvCache kv = kv_shape_;
  kv.base = kv_.as<>() + layer * kv_layer_bytes_;
  return kv;
}

void CudaModel::allocate_inputs() {
  const int64_t tokens = program_.max_num_batched_tokens, seqs = program_.max_num_seqs,
                rows = program_.max_num_logit_rows;
  const int64_t blocks = seqs * ((program_.max_model_len + program_.kv.block_size - 1) / program_.kv.block_size + 1);
  max_table_blocks_ = blocks;
  const auto carve = [&](uint8_t* base) {
    Carver carver(base);
    inputs_ = {.num_seqs = carver.take<int32_t>(1),
               .token_ids = carver.take<int32_t>(tokens),
               .positions = carver.take<int32_t>(tokens),
               .kv_slots = carver.take<int64_t>(tokens),
               .cu_query_lens = carver.take<int32_t>(seqs + 1),
               .context_lens = carver.take<int32_t>(seqs),
               .slots = carver.take<int32_t>(seqs),
               .num_drafts = carver.take<int32_t>(seqs),
               .first_blocks = carver.take<int32_t>(seqs),
               .block_tables = carver.take<int32_t>(blocks),
               .rows = carver.take<LogitRow>(rows),
               .row_indices = carver.take<int32_t>(rows),
               .first_samples = nullptr};
    return carver.size();
  };
  input_memory_ = DeviceMemory(carve(nullptr), "the inputs of a pass");
  carve(input_memory_.as<>());
}

void CudaModel::check_tables(int64_t step, const Span<int32_t>& block_tables) const {
  if (block_tables.size <= max_table_blocks_) return;
  throw Error("ERR_PLAN", "Plan " + std::to_string(step) + ": expected block tables of at most " +
                              std::to_string(max_table_blocks_) + " blocks but received " +
                              std::to_string(block_tables.size));
}

int64_t CudaModel::ld(int value) const { return round_up(width(value), 32); }

void CudaModel::allocate_values() {
  std::vector<int64_t> sizes;
  for (size_t v = 0; v < program_.values.size(); v++) {
    const ValueSpec& spec = program_.values[v];
    const int64_t rows = spec.logit_rows ? program_.max_num_logit_rows : program_.max_num_batched_tokens;
    const int64_t copies = num_roots_[v].empty() ? 1 : num_roots_[v][exchange_.rank()];
    const int64_t element = spec.activation ? static_cast<int64_t>(dtype_size(program_.dtype)) : 4;
    sizes.push_back(lowered_.is_written[v] ? round_up(copies * rows * ld(static_cast<int>(v)) * element, 256) : 0);
  }
  arena_plan_ = plan_arena(lowered_.uses, sizes);
  arena_ = DeviceMemory(arena_plan_.size, "activations");
  int64_t widest = 0;
  for (const Launch& launch : lowered_.launches) {
    if (launch.kind == LaunchKind::linear && launch.result == LinearResult::silu_mul)
      widest = std::max(widest, int64_t{weights_->linear(op(launch).weight).num_rows});
  }
  if (blas_ != nullptr) gate_up_ = DeviceMemory(widest * program_.max_num_batched_tokens * 4, "activations");

  int64_t floats = 0;
  for (const RopeSpec& rope : program_.ropes) {
    const int64_t half = static_cast<int64_t>(rope.inv_freq.size());
    floats += round_up(half, 64) + 2 * round_up(half * program_.max_num_batched_tokens, 64) +
              round_up(static_cast<int64_t>(rope.query_scales.size()), 64);
  }
  rope_memory_ = DeviceMemory(floats * 4, "rotary embeddings");
  Carver carver(rope_memory_.as<>());
  for (const RopeSpec& rope : program_.ropes) {
    const int64_t half = static_cast<int64_t>(rope.inv_freq.size());
    float* const inv_freq = carver.take<float>(half);
    check(
        cudaMemcpyAsync(inv_freq, rope.inv_freq.data(), static_cast<size_t>(half) * 4, cudaMemcpyHostToDevice, stream_),
        "uploading frequencies");
    inv_freqs_.push_back(inv_freq);
    cos_.push_back(carver.take<float>(half * program_.max_num_batched_tokens));
    sin_.push_back(carver.take<float>(half * program_.max_num_batched_tokens));
    const size_t num_scales = rope.query_scales.size();
    query_scales_.push_back(num_scales == 0 ? nullptr : carver.take<float>(static_cast<int64_t>(num_scales)));
    if (num_scales == 0) continue;
    check(cudaMemcpyAsync(query_scales_.back(), rope.query_scales.data(), num_scales * 4, cudaMemcpyHostToDevice,
                          stream_),
          "uploading factors of queries");
  }
  if (exchange_.world_size() == 1) return;

  // The largest gather: embedding rows of all ranks, or a value's partial sums of all ranks.
  int64_t most =
      int64_t{exchange_.world_size()} * program_.max_num_batched_tokens * round_up(program_.hidden_size, 32) * 4;
  for (size_t v = 0; v < program_.values.size(); v++) {
    int64_t roots = 0;
    for (const int count : num_roots_[v]) roots += count;
    most = std::max(most, roots * program_.max_num_batched_tokens * ld(static_cast<int>(v)) * 4);
  }
  gathered_ = DeviceMemory(most, "what ranks exchange");
  owner_edges_ = DeviceMemory(int64_t{4} * exchange_.world_size(), "what ranks exchange");
  check(cudaMemcpyAsync(owner_edges_.as<>(), layout_.first_row.data(), layout_.first_row.size() * 4,
                        cudaMemcpyHostToDevice, stream_),
        "uploading the vocabulary's layout");
  wait_for(stream_, nullptr);
}

AttentionLimits CudaModel::attention_limits() const {
  return {.max_seqs = program_.max_num_seqs,
          .max_tokens = program_.max_num_batched_tokens,
          .max_model_len = program_.max_model_len,
          .num_heads = heads_.num_heads,
          .num_kv_heads = heads_.num_kv_heads,
          .group_size = heads_.group_size,
          .head_dim = heads_.head_dim,
          .dtype = program_.dtype,
          .kv_dtype = program_.kv.dtype};
}

void CudaModel::allocate_attention() {
  const AttentionLimits limits = attention_limits();
  attention_plan_bytes_ = round_up(attention_plan_bytes(limits), 256);
  attention_memory_ = DeviceMemory(attention_plan_bytes_ + attention_scratch_bytes(limits), "attention");
  // Counters of finished segments start at 0.
  check(cudaMemsetAsync(attention_memory_.as<>(), 0, static_cast<size_t>(attention_memory_.size()), stream_),
        "clearing the scratch of attention");
}

}  // namespace nds::cuda
