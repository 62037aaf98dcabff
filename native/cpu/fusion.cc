// Operators that run as one: a product of gate and up, and the silu_mul after it.
#include "cpu/fusion.h"

#include "core/program/packed_linear.h"

namespace nds::cpu {

std::vector<bool> find_gated(const ProgramSpec& program) {
  std::vector<int> num_reads(program.values.size(), 0);
  for (const ValueUse& use : value_uses(program)) {
    for (const int value : use.reads) num_reads[value]++;
  }
  std::vector<bool> gated(program.ops.size(), false);
  for (size_t i = 0; i + 1 < program.ops.size(); i++) {
    const OpSpec &op = program.ops[i], &next = program.ops[i + 1];
    gated[i] = op.out != kNone && can_run_as_one(op, next, num_reads[op.out]) && next.up_offset % kPanel == 0;
  }
  return gated;
}

std::vector<ValueUse> fused_uses(const ProgramSpec& program, const std::vector<bool>& gated) {
  std::vector<ValueUse> uses = value_uses(program);
  for (size_t i = 0; i < uses.size(); i++) {
    if (!gated[i]) continue;
    uses[i].write = uses[i + 1].write;
    uses[i + 1] = {};
  }
  return uses;
}

}  // namespace nds::cpu
