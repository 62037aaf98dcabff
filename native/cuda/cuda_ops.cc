// The launches of a pass: each finds its buffers and calls its kernel.
#include <algorithm>

#include "cuda/cuda_model.h"

namespace nds::cuda {
namespace {

constexpr int kMinBlasRows = 17;

}  // namespace

void CudaModel::embedding(const Launch& launch, const PassBounds& bounds) {
  const DeviceTable& table = weights_->table(op(launch).weight);
  const bool is_alone = exchange_.world_size() == 1;
  const int64_t row_floats = ld(launch.out), part = bounds.num_tokens * row_floats;
  float* const mine = is_alone ? f32(launch.out) : gathered_.as<float>() + exchange_.rank() * part;
  nds::cuda::embedding({.token_ids = inputs_.token_ids,
                        .rows = bounds.num_tokens,
                        .table = table.rows,
                        .table_dtype = table.dtype,
                        .table_ld = table.ld,
                        .first_row = table.first_row,
                        .num_rows = table.num_rows,
                        .width = width(launch.out),
                        .out = mine,
                        .ld_out = row_floats},
                       next_kernel());
  if (is_alone) return;
  exchange_.all_gather(mine, std::vector<int64_t>(exchange_.world_size(), part * 4), gathered_.as<>(),
                       between_kernels());
  select_rows({.token_ids = inputs_.token_ids,
               .rows = bounds.num_tokens,
               .first_rows = owner_edges_.as<int32_t>(),
               .world_size = exchange_.world_size(),
               .parts = gathered_.as<float>(),
               .ld = row_floats,
               .out = f32(launch.out)},
              between_kernels());
}

void CudaModel::rms_norm(const Launch& launch, const PassBounds& bounds) {
  const float* addend = launch.b == kNone ? nullptr : f32(launch.b);
  nds::cuda::rms_norm({.x = f32(launch.x),
                       .ldx = ld(launch.x),
                       .addend = addend,
                       .ld_addend = launch.b == kNone ? 0 : ld(launch.b),
                       .weight = weights_->vector(op(launch).weight),
                       .eps = op(launch).eps,
                       .rows = rows(launch.x, bounds),
                       .width = width(launch.x),
                       .out = data(launch.out),
                       .ld_out = ld(launch.out),
                       .out_dtype = program_.dtype},
                      next_kernel());
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
  if (!linear_by_blas(args)) nds::cuda::linear(args, next_kernel());
}

// Our own kernel reads the weights at the speed of memory for 8 rows, but at half of it for 32 (on an H200).
bool CudaModel::linear_by_blas(LinearArgs args) {
  if (blas_ == nullptr || args.m < kMinBlasRows || !Blas::serves(args)) return false;
  between_kernels();
  if (args.result != LinearResult::silu_mul) {
    blas_->linear(args);
    return true;
  }
  const LinearArgs whole = args;
  args.result = LinearResult::store;
  args.y = gate_up_.as<float>();
  args.ldy = args.w.num_rows;
  blas_->linear(args);
  nds::cuda::silu_mul({.gate = args.y,
                       .up = args.y + whole.up_offset,
                       .ld = args.ldy,
                       .rows = args.m,
                       .width = whole.width,
                       .out = whole.out,
                       .ld_out = whole.ld_out,
                       .out_dtype = program_.dtype},
                      next_kernel());
  return true;
}

void CudaModel::all_reduce(const Launch& launch, const PassBounds& bounds) {
  const std::vector<int>& roots = num_roots_[launch.x];
  const int64_t count = rows(launch.x, bounds) * ld(launch.x);
  const std::vector<uint8_t>& merges = merges_[launch.x];
  const PeerMemory* const peers = exchange_.peers();
  if (peers != nullptr && peers->serves(roots, count)) {
    const int64_t bytes = roots[exchange_.rank()] * count * 4;
    exchange_.count({.bytes = bytes, .all_reduce_bytes = bytes});
    return peers->all_reduce(f32(launch.x), roots, merges, bias(launch.bias), ld(launch.x), count, f32(launch.out),
                             next_kernel());
  }
  if (!deterministic_ && exchange_.has_all_reduce()) {
    std::vector<uint8_t> local_merges(roots[exchange_.rank()], 1);
    if (!local_merges.empty()) local_merges[0] = 0;
    // The first rank that has roots adds the bias, on behalf of all.
    const auto first = std::find_if(roots.begin(), roots.end(), [](int num) { return num > 0; });
    const bool is_first = first - roots.begin() == exchange_.rank();
    join_partials(launch, f32(launch.x), local_merges, is_first ? bias(launch.bias) : nullptr, count);
    return exchange_.all_reduce(f32(launch.out), count, between_kernels());
  }
  std::vector<int64_t> bytes;
  for (const int num : roots) bytes.push_back(num * count * 4);
  exchange_.all_gather(data(launch.x), bytes, gathered_.as<>(), between_kernels());
  join_partials(launch, gathered_.as<float>(), merges, bias(launch.bias), count);
}

void CudaModel::join_partials(const Launch& launch, const float* partials, const std::vector<uint8_t>& merges,
                              const float* bias, int64_t count) {
  if (merges.empty()) {
    check(cudaMemsetAsync(data(launch.out), 0, static_cast<size_t>(count * 4), between_kernels()), "clearing a sum");
    return;
  }
  JoinArgs args{};
  args.num_inputs = static_cast<int>(merges.size());
  for (int i = 0; i < args.num_inputs; i++) {
    args.inputs[i] = partials + i * count;
    args.merges[i] = merges[i];
  }
  args.bias = bias;
  args.width = ld(launch.x);
  args.count = count;
  args.out = f32(launch.out);
  join(args, next_kernel());
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
  args.query_scales = query_scales_[rope.rope];
  args.num_query_scales = static_cast<int>(program_.ropes[rope.rope].query_scales.size());
  args.query_length = program_.ropes[rope.rope].query_length;
  args.positions = inputs_.positions;
  nds::cuda::rope_and_store(args, next_kernel());
}

void CudaModel::paged_attention(const Launch& launch, const PassBounds& bounds) {
  const OpSpec& attention = op(launch);
  nds::cuda::paged_attention({.batch = attention_batch(bounds),
                              .q = data(launch.x),
                              .ldq = ld(launch.x),
                              .kv = kv_cache(attention.layer),
                              .heads = attention.heads,
                              .scale = attention.scale,
                              .sliding_window = attention.sliding_window,
                              .out = data(launch.out),
                              .ld_out = ld(launch.out),
                              .scratch = attention_memory_.as<>() + attention_plan_bytes_},
                             attention_limits(), next_kernel());
}

void CudaModel::silu_mul(const Launch& launch, const PassBounds& bounds) {
  const float* gate = f32(launch.x);
  nds::cuda::silu_mul({.gate = gate,
                       .up = gate + op(launch).up_offset,
                       .ld = ld(launch.x),
                       .rows = rows(launch.x, bounds),
                       .width = width(launch.out),
                       .out = data(launch.out),
                       .ld_out = ld(launch.out),
                       .out_dtype = program_.dtype},
                      next_kernel());
}

void CudaModel::add(const Launch& launch, const PassBounds& bounds) {
  nds::cuda::add({.a = f32(launch.x),
                  .b = f32(launch.b),
                  .out = f32(launch.out),
                  .lda = ld(launch.x),
                  .ldb = ld(launch.b),
                  .ld_out = ld(launch.out),
                  .rows = rows(launch.x, bounds),
                  .width = width(launch.x)},
                 next_kernel());
}

void CudaModel::gather_rows(const Launch& launch, const PassBounds& bounds) {
  const int element = program_.values[launch.x].activation ? static_cast<int>(dtype_size(program_.dtype)) : 4;
  nds::cuda::gather_rows({.x = data(launch.x),
                          .ldx = ld(launch.x),
                          .indices = inputs_.row_indices,
                          .rows = bounds.num_logit_rows,
                          .width = width(launch.x),
                          .element_size = element,
                          .out = data(launch.out),
                          .ld_out = ld(launch.out)},
                         next_kernel());
}

void CudaModel::copy_blocks(const int32_t* device_pairs, int num_pairs) {
  nds::cuda::copy_blocks({.kv = kv_cache(0),
                          .layer_stride = kv_layer_bytes_,
                          .num_layers = program_.kv.num_layers,
                          .pairs = device_pairs,
                          .num_pairs = num_pairs},
                         stream_);
}

}  // namespace nds::cuda
