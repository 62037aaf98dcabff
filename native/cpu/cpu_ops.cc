// The operators of a step: each finds its buffers and calls its kernel on one of num_threads() parts.
#include <algorithm>

#include "cpu/cpu_model.h"

namespace nds::cpu {

Matrix CpuModel::value(int id) const {
  const ValueSpec& spec = program_.values[id];
  const int rows = spec.logit_rows ? pass_->num_logit_rows() : pass_->num_tokens();
  return {memory(id), rows, spec.width, row_stride(spec)};
}

KvView CpuModel::kv_view(int layer) const {
  KvView view = kv_shape_;
  view.base = kv_.data() + layer * kv_layer_bytes_;
  return view;
}

void CpuModel::sample(const OpSpec&, int tid) { sampler_->sample_local(*pass_, tid); }

void CpuModel::rms_norm(const OpSpec& op, int tid) {
  const Matrix x = value(op.x), out = value(op.out);
  kernels_.rms_norm({.x = x.f32(),
                     .ldx = x.ld,
                     .weight = (*weights_)[op.weight].vector.data(),
                     .eps = op.eps,
                     .rows = x.rows,
                     .width = x.width,
                     .out = out.data,
                     .ld_out = out.ld,
                     .out_dtype = program_.dtype},
                    tid, num_threads());
}

void CpuModel::head_norm(const OpSpec& op, int tid) {
  const Matrix qkv = value(op.x);
  const HeadLayout& heads = op.heads;
  HeadNormArgs args{.qkv = qkv.f32(),
                    .ld = qkv.ld,
                    .rows = qkv.rows,
                    .offset = heads.q_offset,
                    .num_heads = heads.num_heads,
                    .head_dim = heads.head_dim,
                    .weight = (*weights_)[op.weight].vector.data(),
                    .eps = op.eps};
  kernels_.head_norm(args, tid, num_threads());
  args.offset = heads.k_offset;
  args.num_heads = heads.num_kv_heads;
  args.weight = (*weights_)[op.k_weight].vector.data();
  kernels_.head_norm(args, tid, num_threads());
}

void CpuModel::silu_mul(const OpSpec& op, int tid) {
  const Matrix gate_up = value(op.x), out = value(op.out);
  kernels_.silu_mul({.gate = gate_up.f32(),
                     .up = gate_up.f32() + op.up_offset,
                     .ld = gate_up.ld,
                     .rows = out.rows,
                     .width = out.width,
                     .out = out.data,
                     .ld_out = out.ld,
                     .out_dtype = program_.dtype},
                    tid, num_threads());
}

void CpuModel::add(const OpSpec& op, int tid) {
  const Matrix a = value(op.x), b = value(op.b), out = value(op.out);
  kernels_.add({.a = a.f32(),
                .b = b.f32(),
                .out = out.f32(),
                .lda = a.ld,
                .ldb = b.ld,
                .ld_out = out.ld,
                .rows = out.rows,
                .width = out.width},
               tid, num_threads());
}

void CpuModel::embedding(const OpSpec& op, int tid) {
  const Matrix out = value(op.out);
  const Table& table = (*weights_)[op.weight].table;
  kernels_.embedding({.token_ids = pass_->token_ids.data(),
                      .rows = out.rows,
                      .table = table.rows,
                      .table_dtype = table.dtype,
                      .table_ld = table.num_cols,
                      .first_row = table.first_row,
                      .num_rows = table.num_rows,
                      .width = out.width,
                      .out = out.f32(),
                      .ld_out = out.ld},
                     tid, num_threads());
}

void CpuModel::exchange_rows(const OpSpec& op, int tid) {
  const Matrix out = value(op.out);
  once(tid, [&] {
    owners_.resize(out.rows);
    for (int i = 0; i < out.rows; i++) owners_[i] = layout_.owner(pass_->token_ids[i]);
    comm_.exchange_rows(out.data, out.rows, int64_t{out.width} * 4, out.ld * 4, owners_.data());
  });
}

LinearArgs CpuModel::linear_args(const OpSpec& op, int tid) {
  const Matrix x = value(op.x);
  const float* bias = op.bias == kNone ? nullptr : (*weights_)[op.bias].vector.data();
  const PackedLinear& w = *(*weights_)[op.weight].linear;
  LinearArgs args{.x = x.data,
                  .ldx = x.ld,
                  .x_dtype = program_.dtype,
                  .m = x.rows,
                  .w = &w,
                  .bias = bias,
                  .y = nullptr,
                  .ldy = 0,
                  .root_stride = 0,
                  .scratch = linear_scratch_};
  if (is_quantized(w.format)) {
    // Few rows each part quantizes for itself; more were a stage of their own.
    const bool is_own = x.rows <= kOwnRows;
    uint8_t* const rows = quantized_ + (is_own ? tid * own_quantized_bytes_ : 0);
    if (is_own) quantize_rows(x, w, rows, 0, 1);
    args.x = rows;
    args.ldx = kernels_.quantized_row_bytes(w);
  }
  return args;
}

void CpuModel::linear(const OpSpec& op, int tid) {
  const Matrix out = value(op.out);
  LinearArgs args = linear_args(op, tid);
  args.y = out.f32();
  args.ldy = out.ld;
  args.root_stride = out.rows * out.ld;
  kernels_.linear(args, tid, num_threads());
}

// Together with the silu_mul right after it in program_.ops, as find_fusion saw.
void CpuModel::linear_silu_mul(const OpSpec& op, int tid) {
  const OpSpec& silu_mul = *(&op + 1);
  const Matrix out = value(silu_mul.out);
  kernels_.linear_silu_mul({.linear = linear_args(op, tid),
                            .up_offset = silu_mul.up_offset,
                            .width = out.width,
                            .out = out.data,
                            .ld_out = out.ld,
                            .out_dtype = program_.dtype},
                           tid, num_threads());
}

void CpuModel::quantize(const OpSpec& op, int tid) {
  quantize_rows(value(op.x), *(*weights_)[op.weight].linear, quantized_, tid, num_threads());
}

void CpuModel::quantize_rows(const Matrix& x, const PackedLinear& w, uint8_t* out, int tid, int num_threads) {
  kernels_.quantize_rows({.x = x.data, .ldx = x.ld, .x_dtype = program_.dtype, .rows = x.rows, .w = &w, .out = out},
                         tid, num_threads);
}

void CpuModel::all_reduce(const OpSpec& op, int tid) {
  const Matrix x = value(op.x), out = value(op.out);
  const PartialSums& sums = partials_[op.x];
  const int64_t count = x.rows * x.ld;
  once(tid, [&] {
    std::vector<const float*> local;
    for (int root = 0; root < sums.num_roots[comm_.rank()]; root++) local.push_back(x.f32() + root * count);
    int num_inputs = 0;
    for (const int roots : sums.num_roots) num_inputs += roots;
    const auto join = [&](const float* const* inputs, int64_t begin, int64_t end, float* to) {
      kernels_.join({.inputs = inputs,
                     .merges = sums.merges.data(),
                     .num_inputs = num_inputs,
                     .bias = nullptr,
                     .width = 1,
                     .begin = begin,
                     .end = end,
                     .out = to});
    };
    comm_.all_reduce(local.data(), sums.num_roots.data(), count, join, out.f32());
  });
}

// Adds the bias once, after the sum.
void CpuModel::add_bias(const OpSpec& op, int tid) {
  const Matrix out = value(op.out);
  const float* const joined = is_alone() ? value(op.x).f32() : out.f32();
  const uint8_t no_merges[1] = {0};
  const auto [begin, end] = share_of_rows(out.rows, tid);
  if (begin < end)
    kernels_.join({.inputs = &joined,
                   .merges = no_merges,
                   .num_inputs = 1,
                   .bias = (*weights_)[op.bias].vector.data(),
                   .width = out.ld,
                   .begin = begin * out.ld,
                   .end = end * out.ld,
                   .out = out.f32()});
}

void CpuModel::rope_and_store(const OpSpec& op, int tid) {
  const Matrix qkv = value(op.x), out = value(op.out);
  const HeadLayout& heads = op.heads;
  const RopeSpec& rope = program_.ropes[op.rope];
  kernels_.rope_and_store({.qkv = qkv.f32(),
                           .ld = qkv.ld,
                           .rows = qkv.rows,
                           .num_heads = heads.num_heads,
                           .q_offset = heads.q_offset,
                           .k_offset = heads.k_offset,
                           .v_offset = heads.v_offset,
                           .cos = rope_cos_[op.rope],
                           .sin = rope_sin_[op.rope],
                           .kv = kv_view(op.layer),
                           .kv_slots = pass_->kv_slots.data(),
                           .q_out = out.data,
                           .ld_q = out.ld,
                           .query_scales = rope.query_scales.empty() ? nullptr : rope.query_scales.data(),
                           .query_length = rope.query_length,
                           .positions = pass_->positions.data()},
                          tid, num_threads());
}

void CpuModel::paged_attention(const OpSpec& op, int tid) {
  const Matrix q = value(op.x), out = value(op.out);
  const Pass& pass = *pass_;
  const HeadLayout& heads = op.heads;
  kernels_.paged_attention({.q = q.data,
                            .ldq = q.ld,
                            .num_seqs = pass.num_seqs(),
                            .cu_query_lens = pass.cu_query_lens.data(),
                            .context_lens = pass.context_lens.data(),
                            .block_tables = pass.block_tables,
                            .first_blocks = pass.first_blocks.data(),
                            .kv = kv_view(op.layer),
                            .num_heads = heads.num_heads,
                            .first_head = heads.first_head,
                            .group_size = heads.group_size,
                            .first_kv_head = heads.first_kv_head,
                            .scale = op.scale,
                            .sliding_window = op.sliding_window,
                            .out = out.data,
                            .ld_out = out.ld,
                            .scratch = attention_scratch_},
                           tid, num_threads());
}

// The residual stream is whole on every rank: no exchange.
void CpuModel::hidden_states(const OpSpec& op, int tid) {
  const Matrix x = value(op.x);
  const int num_rows = static_cast<int>(pass_->hidden_rows.size);
  for (int i = tid; i < num_rows; i += num_threads()) {
    kernels_.rms_norm({.x = x.f32() + pass_->hidden_rows[i] * x.ld,
                       .ldx = x.ld,
                       .weight = (*weights_)[op.weight].vector.data(),
                       .eps = op.eps,
                       .rows = 1,
                       .width = x.width,
                       .out = result_->hidden.data() + int64_t{i} * x.width,
                       .ld_out = x.width,
                       .out_dtype = DType::f32},
                      0, 1);
  }
}

void CpuModel::gather_rows(const OpSpec& op, int tid) {
  const Matrix x = value(op.x), out = value(op.out);
  const int64_t row_bytes =
      x.ld * (program_.values[op.x].activation ? static_cast<int64_t>(dtype_size(program_.dtype)) : 4);
  const auto [begin, end] = share_of_rows(out.rows, tid);
  for (int64_t i = begin; i < end; i++) {
    std::copy_n(x.data + pass_->rows[i].row * row_bytes, row_bytes, out.data + i * row_bytes);
  }
}

}  // namespace nds::cpu
