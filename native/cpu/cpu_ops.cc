// One operator of the running step: finds its buffers and calls its kernel on this thread's share.
#include <algorithm>

#include "cpu/cpu_model.h"

namespace nds::cpu {

Matrix CpuModel::value(int id) const {
  const ValueSpec& spec = program_.values[id];
  const int rows = spec.logit_rows ? pass_->num_logit_rows() : pass_->num_tokens();
  return {arena_.data() + arena_plan_.offsets[id], rows, spec.width, row_stride(spec)};
}

KvView CpuModel::kv_view(int layer) const {
  KvView view = kv_shape_;
  view.base = kv_.data() + layer * kv_layer_bytes_;
  return view;
}

void CpuModel::run_op(const OpSpec& op, int tid) {
  const int n = num_threads();
  switch (op.kind) {
    case OpKind::embedding:
      return embedding(op, tid);
    case OpKind::rms_norm: {
      const Matrix x = value(op.x), out = value(op.out);
      return kernels_.rms_norm({x.f32(), x.ld, (*weights_)[op.weight].vector.data(), op.eps, x.rows, x.width, out.data,
                                out.ld, program_.dtype},
                               tid, n);
    }
    case OpKind::linear:
      return linear(op, tid);
    case OpKind::all_reduce:
      return all_reduce(op, tid);
    case OpKind::head_norm: {
      const Matrix qkv = value(op.x);
      const HeadLayout& heads = op.heads;
      const float* q_weight = (*weights_)[op.weight].vector.data();
      const float* k_weight = (*weights_)[op.k_weight].vector.data();
      kernels_.head_norm(
          {qkv.f32(), qkv.ld, qkv.rows, heads.q_offset, heads.num_heads, heads.head_dim, q_weight, op.eps}, tid, n);
      return kernels_.head_norm(
          {qkv.f32(), qkv.ld, qkv.rows, heads.k_offset, heads.num_kv_heads, heads.head_dim, k_weight, op.eps}, tid, n);
    }
    case OpKind::rope_and_store:
      return rope_and_store(op, tid);
    case OpKind::paged_attention:
      return paged_attention(op, tid);
    case OpKind::silu_mul: {
      const Matrix gate_up = value(op.x), out = value(op.out);
      return kernels_.silu_mul({gate_up.f32(), gate_up.f32() + op.up_offset, gate_up.ld, out.rows, out.width, out.data,
                                out.ld, program_.dtype},
                               tid, n);
    }
    case OpKind::add: {
      const Matrix a = value(op.x), b = value(op.b), out = value(op.out);
      return kernels_.add({a.f32(), b.f32(), out.f32(), a.ld, b.ld, out.ld, out.rows, out.width}, tid, n);
    }
    case OpKind::gather_rows:
      return gather_rows(op, tid);
    case OpKind::sample:
      return sample(tid);
  }
}

void CpuModel::embedding(const OpSpec& op, int tid) {
  const Matrix out = value(op.out);
  const Table& table = (*weights_)[op.weight].table;
  kernels_.embedding({pass_->token_ids.data(), out.rows, table.rows, table.dtype, table.num_cols, table.first_row,
                      table.num_rows, out.width, out.f32(), out.ld},
                     tid, num_threads());
  if (is_alone()) return;
  pool_.barrier();
  on_first_thread(tid, [&] {
    owners_.resize(out.rows);
    for (int i = 0; i < out.rows; i++) owners_[i] = layout_.owner(pass_->token_ids[i]);
    comm_.exchange_rows(out.data, out.rows, int64_t{out.width} * 4, out.ld * 4, owners_.data());
  });
}

void CpuModel::linear(const OpSpec& op, int tid) {
  const Matrix x = value(op.x), out = value(op.out);
  const float* bias = op.bias == kNone ? nullptr : (*weights_)[op.bias].vector.data();
  const LinearArgs args{x.data, x.ld,      program_.dtype, x.rows,           (*weights_)[op.weight].linear.get(),
                        bias,   out.f32(), out.ld,         out.rows * out.ld};
  kernels_.linear(args, tid, num_threads());
}

void CpuModel::all_reduce(const OpSpec& op, int tid) {
  const Matrix x = value(op.x), out = value(op.out);
  const PartialSums& sums = partials_[op.x];
  const int64_t count = x.rows * x.ld;
  const float* joined = x.f32();
  if (!is_alone()) {
    on_first_thread(tid, [&] {
      std::vector<const float*> local;
      for (int root = 0; root < sums.num_roots[comm_.rank()]; root++) local.push_back(x.f32() + root * count);
      int num_inputs = 0;
      for (const int roots : sums.num_roots) num_inputs += roots;
      const auto join = [&](const float* const* inputs, int64_t begin, int64_t end, float* to) {
        kernels_.join({inputs, sums.merges.data(), num_inputs, nullptr, 1, begin, end, to});
      };
      comm_.all_reduce(local.data(), sums.num_roots.data(), count, join, out.f32());
    });
    if (op.bias == kNone) return;
    pool_.barrier();
    joined = out.f32();
  }
  // Bias once, after the sum; with one rank this is also the copy to the output.
  const uint8_t no_merges[1] = {0};
  const int64_t share = (out.rows + num_threads() - 1) / num_threads() * out.ld;
  const float* bias = op.bias == kNone ? nullptr : (*weights_)[op.bias].vector.data();
  const int64_t begin = std::min(count, tid * share), end = std::min(count, begin + share);
  if (begin < end) kernels_.join({&joined, no_merges, 1, bias, out.ld, begin, end, out.f32()});
}

void CpuModel::rope_and_store(const OpSpec& op, int tid) {
  const Matrix qkv = value(op.x), out = value(op.out);
  const HeadLayout& heads = op.heads;
  kernels_.rope_and_store(
      {qkv.f32(), qkv.ld, qkv.rows, heads.num_heads, heads.q_offset, heads.k_offset, heads.v_offset, rope_cos_[op.rope],
       rope_sin_[op.rope], kv_view(op.layer), pass_->kv_slots.data(), out.data, out.ld},
      tid, num_threads());
}

void CpuModel::paged_attention(const OpSpec& op, int tid) {
  const Matrix q = value(op.x), out = value(op.out);
  const Pass& pass = *pass_;
  const HeadLayout& heads = op.heads;
  kernels_.paged_attention(
      {q.data, q.ld, pass.num_seqs(), pass.cu_query_lens.data(), pass.context_lens.data(), pass.block_tables,
       pass.first_blocks.data(), kv_view(op.layer), heads.num_heads, heads.first_head, heads.group_size,
       heads.first_kv_head, op.scale, op.sliding_window, out.data, out.ld, attention_scratch_},
      tid, num_threads());
}

void CpuModel::gather_rows(const OpSpec& op, int tid) {
  const Matrix x = value(op.x), out = value(op.out);
  const int64_t row_bytes =
      x.ld * (program_.values[op.x].activation ? static_cast<int64_t>(dtype_size(program_.dtype)) : 4);
  for (int i = tid; i < out.rows; i += num_threads()) {
    std::copy_n(x.data + pass_->rows[i].row * row_bytes, row_bytes, out.data + i * row_bytes);
  }
}

void CpuModel::sample(int tid) {
  sampler_->sample_local(*pass_, tid);
  pool_.barrier();
  on_first_thread(tid, [&] { sampler_->choose(*pass_, *result_); });
}

}  // namespace nds::cpu
