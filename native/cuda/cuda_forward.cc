// A pass through a model on a device: its launches, one after the other, or as a graph that was captured before.
#include <algorithm>

#include "cuda/cuda_model.h"

namespace nds::cuda {
namespace {

// Passes up to this size are worth a graph: launching them takes the host longer than the device.
constexpr int kMaxGraphTokens = 512;
constexpr size_t kMaxGraphs = 96;
constexpr int kMinBlasRows = 33;
constexpr int kMaxVerifyLen = 65;  // a query of drafts

int bucket(int count) { return count <= 4 ? count : count <= 16 ? (count + 1) / 2 * 2 : (count + 7) / 8 * 8; }

}  // namespace

bool CudaModel::is_captured(const PassBounds& bounds) const {
  return bounds.num_tokens <= kMaxGraphTokens && bounds.max_query_len <= kMaxVerifyLen && bounds.num_logit_rows > 0 &&
         exchange_.is_asynchronous();
}

PassBounds CudaModel::padded(const PassBounds& bounds) const {
  if (!is_captured(bounds)) return bounds;
  PassBounds result;
  result.num_tokens = std::min(bucket(bounds.num_tokens), program_.max_num_batched_tokens);
  result.num_logit_rows = std::min(bucket(bounds.num_logit_rows), program_.max_num_logit_rows);
  result.num_seqs = std::min(bucket(bounds.num_seqs), program_.max_num_seqs);
  result.max_query_len = bounds.max_query_len == 1 ? 1 : kMaxVerifyLen;
  result.max_context_len = program_.max_model_len;
  return result;
}

void CudaModel::forward(const PassBounds& bounds) {
  if (!is_captured(bounds)) return run(bounds);
  const GraphKey key{bounds.num_tokens, bounds.num_logit_rows, bounds.num_seqs, bounds.max_query_len};
  auto found = graphs_.find(key);
  if (found == graphs_.end()) {
    if (graphs_.size() >= kMaxGraphs) {
      wait_for(stream_, nullptr);
      for (const auto& entry : graphs_) {
        if (entry.second != nullptr) cudaGraphExecDestroy(entry.second);
      }
      graphs_.clear();
    }
    graphs_.emplace(key, nullptr);
    return run(bounds);
  }
  if (found->second == nullptr) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "capturing a pass");
    try {
      run(bounds);
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);
      throw;
    }
    check(cudaStreamEndCapture(stream_, &graph), "capturing a pass");
    cudaGraphExec_t exec = nullptr;
    check(cudaGraphInstantiate(&exec, graph, 0), "making a graph of a pass");
    cudaGraphDestroy(graph);
    found->second = exec;
  }
  check(cudaGraphLaunch(found->second, stream_), "launching the graph of a pass");
}

AttentionBatch CudaModel::attention_batch(const PassBounds& bounds) const {
  return {inputs_.num_seqs,     inputs_.cu_query_lens,    inputs_.context_lens, inputs_.first_blocks,
          inputs_.block_tables, attention_memory_.as<>(), bounds.num_seqs,      bounds.num_tokens,
          bounds.max_query_len, bounds.max_context_len};
}

void CudaModel::run(const PassBounds& bounds) {
  for (size_t i = 0; i < program_.ropes.size(); i++) {
    const RopeSpec& rope = program_.ropes[i];
    rope_table({inputs_.positions, bounds.num_tokens, inv_freqs_[i], static_cast<int>(rope.inv_freq.size()), rope.scale,
                cos_[i], sin_[i]},
               stream_);
  }
  plan_attention(attention_batch(bounds), attention_limits(), stream_);
  for (const Launch& launch : lowered_.launches) {
    // Nothing after the KV is stored matters to a pass that wants no logits.
    if (launch.kind == LaunchKind::gather_rows && bounds.num_logit_rows == 0) return;
    run_launch(launch, bounds);
  }
}

void CudaModel::run_launch(const Launch& launch, const PassBounds& bounds) {
  switch (launch.kind) {
    case LaunchKind::embedding:
      return embedding(launch, bounds);
    case LaunchKind::rms_norm:
      return rms_norm(launch, bounds);
    case LaunchKind::linear:
      return linear(launch, bounds);
    case LaunchKind::all_reduce:
      return all_reduce(launch, bounds);
    case LaunchKind::rope_and_store:
      return rope_and_store(launch, bounds);
    case LaunchKind::paged_attention:
      return paged_attention(launch, bounds);
    case LaunchKind::silu_mul:
      return silu_mul(launch, bounds);
    case LaunchKind::add:
      return add(launch, bounds);
    case LaunchKind::gather_rows:
      return gather_rows(launch, bounds);
    case LaunchKind::sample:
      return;  // what follows the logits is the sampler's
  }
}

void CudaModel::embedding(const Launch& launch, const PassBounds& bounds) {
  const DeviceTable& table = weights_->table(op(launch).weight);
  const bool is_alone = exchange_.world_size() == 1;
  const int64_t row_floats = ld(launch.out), part = bounds.num_tokens * row_floats;
  float* const mine = is_alone ? f32(launch.out) : gathered_.as<float>() + exchange_.rank() * part;
  nds::cuda::embedding({inputs_.token_ids, bounds.num_tokens, table.rows, table.dtype, table.ld, table.first_row,
                        table.num_rows, width(launch.out), mine, row_floats},
                       stream_);
  if (is_alone) return;
  exchange_.all_gather(mine, std::vector<int64_t>(exchange_.world_size(), part * 4), gathered_.as<>(), stream_);
  select_rows({inputs_.token_ids, bounds.num_tokens, owner_edges_.as<int32_t>(), exchange_.world_size(),
               gathered_.as<float>(), row_floats, f32(launch.out)},
              stream_);
}

void CudaModel::rms_norm(const Launch& launch, const PassBounds& bounds) {
  const float* addend = launch.b == kNone ? nullptr : f32(launch.b);
  nds::cuda::rms_norm(
      {f32(launch.x), ld(launch.x), addend, launch.b == kNone ? 0 : ld(launch.b), weights_->vector(op(launch).weight),
       op(launch).eps, rows(launch.x, bounds), width(launch.x), data(launch.out), ld(launch.out), program_.dtype},
      stream_);
}

void CudaModel::linear(const Launch& launch, const PassBounds& bounds) {
  LinearArgs args;
  args.x = data(launch.x);
  args.x_dtype = program_.dtype;
  args.ldx = ld(launch.x);
  args.m = rows(launch.x, bounds);
  args.w = weights_->linear(op(launch).weight);
  args.bias = bias(launch.bias);
  args.result = launch.result;
  if (launch.result == LinearResult::silu_mul) {
    args.out = data(launch.out);
    args.ld_out = ld(launch.out);
    args.width = width(launch.out);
    args.up_offset = program_.ops[launch.silu].up_offset;
  } else {
    args.y = f32(launch.out);
    args.ldy = ld(launch.out);
    args.root_stride = args.m * args.ldy;
  }
  if (!linear_by_blas(args)) nds::cuda::linear(args, stream_);
}

// Few rows are bound by memory, which our own kernel reads as fast.
bool CudaModel::linear_by_blas(LinearArgs args) {
  if (blas_ == nullptr || args.m < kMinBlasRows || !Blas::serves(args)) return false;
  if (args.result != LinearResult::silu_mul) {
    blas_->linear(args);
    return true;
  }
  const LinearArgs whole = args;
  args.result = LinearResult::store;
  args.y = gate_up_.as<float>();
  args.ldy = args.w.num_rows;
  blas_->linear(args);
  nds::cuda::silu_mul(
      {args.y, args.y + whole.up_offset, args.ldy, args.m, whole.width, whole.out, whole.ld_out, program_.dtype},
      stream_);
  return true;
}

void CudaModel::all_reduce(const Launch& launch, const PassBounds& bounds) {
  const std::vector<int>& roots = num_roots_[launch.x];
  const int64_t count = rows(launch.x, bounds) * ld(launch.x);
  std::vector<int64_t> bytes;
  for (const int num : roots) bytes.push_back(num * count * 4);
  exchange_.all_gather(data(launch.x), bytes, gathered_.as<>(), stream_);
  JoinArgs args{};
  args.num_inputs = static_cast<int>(merges_[launch.x].size());
  for (int i = 0; i < args.num_inputs; i++) {
    args.inputs[i] = gathered_.as<float>() + i * count;
    args.merges[i] = merges_[launch.x][i];
  }
  args.bias = bias(launch.bias);
  args.width = ld(launch.x);
  args.count = count;
  args.out = f32(launch.out);
  join(args, stream_);
}

void CudaModel::rope_and_store(const Launch& launch, const PassBounds& bounds) {
  const OpSpec& rope = op(launch);
  const OpSpec* norm = launch.norm == kNone ? nullptr : &program_.ops[launch.norm];
  RopeAndStoreArgs args{};
  args.qkv = f32(launch.x);
  args.ld = ld(launch.x);
  args.rows = bounds.num_tokens;
  args.heads = rope.heads;
  if (norm != nullptr) {
    args.q_weight = weights_->vector(norm->weight);
    args.k_weight = weights_->vector(norm->k_weight);
    args.eps = norm->eps;
  }
  args.cos = cos_[rope.rope];
  args.sin = sin_[rope.rope];
  args.kv = kv_cache(rope.layer);
  args.kv_slots = inputs_.kv_slots;
  args.q_out = data(launch.out);
  args.ld_q = ld(launch.out);
  nds::cuda::rope_and_store(args, stream_);
}

void CudaModel::paged_attention(const Launch& launch, const PassBounds& bounds) {
  const OpSpec& attention = op(launch);
  nds::cuda::paged_attention({attention_batch(bounds), data(launch.x), ld(launch.x), kv_cache(attention.layer),
                              attention.heads, attention.scale, attention.sliding_window, data(launch.out),
                              ld(launch.out), attention_memory_.as<>() + attention_plan_bytes_},
                             attention_limits(), stream_);
}

void CudaModel::silu_mul(const Launch& launch, const PassBounds& bounds) {
  const float* gate = f32(launch.x);
  nds::cuda::silu_mul({gate, gate + op(launch).up_offset, ld(launch.x), rows(launch.x, bounds), width(launch.out),
                       data(launch.out), ld(launch.out), program_.dtype},
                      stream_);
}

void CudaModel::add(const Launch& launch, const PassBounds& bounds) {
  nds::cuda::add({f32(launch.x), f32(launch.b), f32(launch.out), ld(launch.x), ld(launch.b), ld(launch.out),
                  rows(launch.x, bounds), width(launch.x)},
                 stream_);
}

void CudaModel::gather_rows(const Launch& launch, const PassBounds& bounds) {
  const int element = program_.values[launch.x].activation ? static_cast<int>(dtype_size(program_.dtype)) : 4;
  nds::cuda::gather_rows({data(launch.x), ld(launch.x), inputs_.row_indices, bounds.num_logit_rows, width(launch.x),
                          element, data(launch.out), ld(launch.out)},
                         stream_);
}

void CudaModel::copy_blocks(const int32_t* device_pairs, int num_pairs) {
  nds::cuda::copy_blocks({kv_cache(0), kv_layer_bytes_, program_.kv.num_layers, device_pairs, num_pairs}, stream_);
}

}  // namespace nds::cuda
