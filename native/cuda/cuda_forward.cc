// A pass through a model on a device: its launches one by one, or as a captured graph.
#include <algorithm>

#include "cuda/cuda_model.h"

namespace nds::cuda {
namespace {

// Passes up to this size are captured: the host takes longer to launch them than the device to run them.
constexpr int kMaxGraphTokens = 512;
constexpr int kMaxVerifyLen = kMaxPlanDrafts + 1;  // 64 drafts and the token before them

int bucket(int count) { return count <= 4 ? count : count <= 16 ? (count + 1) / 2 * 2 : (count + 7) / 8 * 8; }

}  // namespace

bool CudaModel::is_captured(const PassBounds& bounds) const {
  return bounds.num_tokens <= kMaxGraphTokens && bounds.max_query_len <= kMaxVerifyLen && bounds.num_logit_rows > 0 &&
         exchange_.is_asynchronous() && times_ == nullptr;
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

void CudaModel::forward(const PassBounds& bounds, const std::function<void()>& then) {
  const auto work = [&] {
    run(bounds);
    if (then) then();
  };
  const int has_more = then ? 1 : 0;
  if (is_captured(bounds)) {
    graphs_.run({bounds.num_tokens, bounds.num_logit_rows, bounds.num_seqs, bounds.max_query_len, has_more}, work);
  } else {
    work();
  }
  follows_kernel_ = false;  // no kernel overlaps a graph
}

AttentionBatch CudaModel::attention_batch(const PassBounds& bounds) const {
  return {.num_seqs = inputs_.num_seqs,
          .cu_query_lens = inputs_.cu_query_lens,
          .context_lens = inputs_.context_lens,
          .first_blocks = inputs_.first_blocks,
          .block_tables = inputs_.block_tables,
          .plan = attention_memory_.as<>(),
          .max_seqs = bounds.num_seqs,
          .max_tokens = bounds.num_tokens,
          .max_query_len = bounds.max_query_len,
          .max_context_len = bounds.max_context_len};
}

void CudaModel::run(const PassBounds& bounds) {
  follows_kernel_ = false;
  for (size_t i = 0; i < program_.ropes.size(); i++) {
    const RopeSpec& rope = program_.ropes[i];
    rope_table({.positions = inputs_.positions,
                .rows = bounds.num_tokens,
                .inv_freq = inv_freqs_[i],
                .half_dim = static_cast<int>(rope.inv_freq.size()),
                .scale = rope.scale,
                .cos = cos_[i],
                .sin = sin_[i]},
               next_kernel());
  }
  plan_attention(attention_batch(bounds), attention_limits(), next_kernel());
  if (times_ != nullptr) times_->begin_pass(between_kernels());
  for (const Launch& launch : lowered_.launches) {
    // A pass without logit rows ends once its KV is stored.
    if (launch.kind == LaunchKind::gather_rows && bounds.num_logit_rows == 0) return;
    const OpSpec& op = program_.ops[launch.op];
    progress_.enter(static_cast<int>(op.kind), op.group_layer);
    run_launch(launch, bounds);
    if (launch.op != sample_op_) end_op(launch.op);
  }
}

void CudaModel::trace_to(OpTimes& times, int first_op) {
  times_ = &times;
  first_op_ = first_op;
}

void CudaModel::end_sampling() { end_op(sample_op_); }

void CudaModel::end_op(int op) {
  if (times_ != nullptr) times_->end_op(first_op_ + op, between_kernels());
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
      return;  // done by Sampler
  }
}

}  // namespace nds::cuda
