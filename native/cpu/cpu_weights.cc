// The weights of one rank: vectors copied, embedding tables used in place, matrices packed.
#include "cpu/cpu_weights.h"

#include <string>

#include "core/convert.h"
#include "core/program/reduction_tree.h"
#include "core/program/slice_source.h"
#include "core/round_up.h"

namespace nds::cpu {
namespace {

int64_t num_panels(const TensorSlice& piece) { return (piece.num_rows() + kPanel - 1) / kPanel; }

}  // namespace

CpuWeights::CpuWeights(const ProgramSpec& program, const Kernels& kernels, ThreadPool& pool)
    : weights_(program.weights.size()) {
  files_.reserve(program.files.size());
  for (const std::string& path : program.files) files_.emplace_back(path);
  for (size_t i = 0; i < weights_.size(); i++) {
    const WeightSpec& spec = program.weights[i];
    if (spec.kind == WeightKind::vector) load_vector(spec, weights_[i]);
    if (spec.kind == WeightKind::table) load_table(spec, weights_[i]);
  }
  pack(program, kernels, pool);
}

void CpuWeights::load_vector(const WeightSpec& spec, Weight& weight) {
  for (const TensorSlice& piece : spec.pieces) {
    const size_t begin = weight.vector.size();
    const int64_t count = piece.num_slice_cols();
    weight.vector.resize(begin + round_up(count, kPanel));
    widen(slice_source(files_.at(piece.file), piece), piece.dtype, count, weight.vector.data() + begin);
  }
  bytes_ += static_cast<int64_t>(weight.vector.size()) * 4;
}

void CpuWeights::load_table(const WeightSpec& spec, Weight& weight) {
  const TensorSlice& slice = spec.pieces[0];
  weight.table = {slice_source(files_.at(slice.file), slice), slice.dtype, slice.num_cols,
                  static_cast<int>(spec.first_row), static_cast<int>(slice.num_rows())};
  bytes_ += slice.num_rows() * slice.num_cols * static_cast<int64_t>(dtype_size(slice.dtype));
}

void CpuWeights::pack(const ProgramSpec& program, const Kernels& kernels, ThreadPool& pool) {
  int64_t total = 0;
  for (size_t i = 0; i < weights_.size(); i++) {
    const WeightSpec& spec = program.weights[i];
    if (spec.kind != WeightKind::linear) continue;
    int64_t panels = 0;
    for (const TensorSlice& piece : spec.pieces) panels += num_panels(piece);
    weights_[i].linear = std::make_unique<PackedLinear>(plan_packed_linear(
        spec.pieces[0].dtype, static_cast<int>(panels), spec.chunk_edges, spec.first_chunk, spec.num_chunks));
    total += panels * weights_[i].linear->panel_bytes;
  }
  packed_ = HugeMemory(static_cast<size_t>(total), "packed weights");
  bytes_ += total;
  uint8_t* next = packed_.data();
  for (size_t i = 0; i < weights_.size(); i++) {
    PackedLinear* linear = weights_[i].linear.get();
    if (linear == nullptr) continue;
    linear->data = next;
    next += linear->num_panels * linear->panel_bytes;
    int first_panel = 0;
    for (const TensorSlice& piece : program.weights[i].pieces) {
      const PackArgs args{.w = linear,
                          .src = slice_source(files_.at(piece.file), piece),
                          .src_ld = piece.num_cols,
                          .num_rows = static_cast<int>(piece.num_rows()),
                          .first_panel = first_panel};
      pool.run([&](int tid) { kernels.pack_linear(args, tid, pool.size()); });
      first_panel += static_cast<int>(num_panels(piece));
    }
  }
}

}  // namespace nds::cpu
