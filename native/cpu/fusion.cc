// How a rank runs the operators of a program: which run as one, which do nothing, and which need no barrier in between.
#include "cpu/fusion.h"

#include <algorithm>
#include <numeric>

#include "core/program/packed_linear.h"

namespace nds::cpu {
namespace {

// Whether part p reads and writes the same rows of all its values, those of share p.
bool is_row_wise(const OpSpec& op, bool is_alone) {
  switch (op.kind) {
    case OpKind::embedding:
    case OpKind::all_reduce:
      return is_alone;
    case OpKind::rms_norm:
    case OpKind::head_norm:
    case OpKind::rope_and_store:
    case OpKind::silu_mul:
    case OpKind::add:
      return true;
    default:
      return false;
  }
}

void find_gated(const ProgramSpec& program, Fusion& fusion) {
  std::vector<int> num_reads(program.values.size(), 0);
  for (const ValueUse& use : value_uses(program)) {
    for (const int value : use.reads) num_reads[value]++;
  }
  for (size_t i = 0; i + 1 < program.ops.size(); i++) {
    const OpSpec &op = program.ops[i], &next = program.ops[i + 1];
    if (op.out == kNone || !can_run_as_one(op, next, num_reads[op.out]) || next.up_offset % kPanel != 0) continue;
    fusion.gated[i] = fusion.idle[i + 1] = true;
    fusion.held_in[op.out] = kNone;
  }
}

void find_joins(const ProgramSpec& program, bool is_alone, Fusion& fusion) {
  bool writes_own_rows = false;  // the operator before
  for (size_t i = 0; i < program.ops.size(); i++) {
    if (fusion.idle[i]) continue;
    const OpSpec& op = program.ops[i];
    const bool row_wise = is_row_wise(op, is_alone);
    fusion.joins[i] = writes_own_rows && (row_wise || op.kind == OpKind::linear);
    writes_own_rows = row_wise || op.kind == OpKind::gather_rows;
  }
}

}  // namespace

Fusion find_fusion(const ProgramSpec& program, bool is_alone) {
  const std::vector<bool> none(program.ops.size(), false);
  Fusion fusion{none, none, none, std::vector<int>(program.values.size())};
  std::iota(fusion.held_in.begin(), fusion.held_in.end(), 0);
  find_gated(program, fusion);
  for (size_t i = 0; i < program.ops.size(); i++) {
    const OpSpec& op = program.ops[i];
    if (op.kind != OpKind::all_reduce || !is_alone || op.bias != kNone) continue;
    fusion.idle[i] = true;
    fusion.held_in[op.out] = op.x;
  }
  find_joins(program, is_alone, fusion);
  return fusion;
}

std::vector<ValueUse> fused_uses(const ProgramSpec& program, const Fusion& fusion) {
  std::vector<ValueUse> uses = value_uses(program);
  int until = kNone;  // end of the operators that run without a barrier after i
  for (int i = static_cast<int>(uses.size()) - 1; i >= 0; i--) {
    ValueUse& use = uses[i];
    if (fusion.gated[i]) use.write = program.ops[i + 1].out;
    if (fusion.idle[i]) {
      use = {};
      continue;
    }
    for (int& value : use.reads) value = fusion.held_in[value];
    use.until = until = std::max(until, i);
    if (!fusion.joins[i] || program.ops[i].kind == OpKind::linear) until = kNone;
  }
  return uses;
}

}  // namespace nds::cpu
