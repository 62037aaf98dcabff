// Which operators of a decoder layer need no barrier in between, and that values which such a run reads or writes share
// no memory: a part of it may be late by the whole run.
#include "cpu/fusion.h"

#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>

namespace {

using nds::kNone;
using nds::OpKind;

void expect(bool holds, const std::string& what) {
  if (holds) return;
  std::printf("Expected %s\n", what.c_str());
  std::exit(1);
}

struct Op {
  OpKind kind;
  int x, b, out;
  bool partial;
  // Of one rank, of one rank with a bias of the all-reduces, of several: "" idle, "|" no, "+" yes.
  const char* joins[3];
};

const Op kOps[] = {
    {OpKind::embedding, kNone, kNone, 0, false, {"|", "|", "|"}},
    {OpKind::rms_norm, 0, kNone, 1, false, {"+", "+", "|"}},
    {OpKind::linear, 1, kNone, 2, false, {"+", "+", "+"}},
    {OpKind::head_norm, 2, kNone, kNone, false, {"|", "|", "|"}},
    {OpKind::rope_and_store, 2, kNone, 3, false, {"+", "+", "+"}},
    {OpKind::paged_attention, 3, kNone, 4, false, {"|", "|", "|"}},
    {OpKind::linear, 4, kNone, 5, true, {"|", "|", "|"}},
    {OpKind::all_reduce, 5, kNone, 6, false, {"", "|", "|"}},
    {OpKind::add, 0, 6, 7, false, {"|", "+", "|"}},
    {OpKind::rms_norm, 7, kNone, 8, false, {"+", "+", "+"}},
    {OpKind::linear, 8, kNone, 9, false, {"+", "+", "+"}},
    {OpKind::silu_mul, 9, kNone, 10, false, {"", "", ""}},
    {OpKind::linear, 10, kNone, 11, true, {"|", "|", "|"}},
    {OpKind::all_reduce, 11, kNone, 12, false, {"", "|", "|"}},
    {OpKind::add, 7, 12, 13, false, {"|", "+", "|"}},
    {OpKind::hidden_states, 13, kNone, kNone, false, {"|", "|", "|"}},
    {OpKind::gather_rows, 13, kNone, 14, false, {"|", "|", "|"}},
    {OpKind::rms_norm, 14, kNone, 15, false, {"+", "+", "+"}},
    {OpKind::linear, 15, kNone, 16, false, {"+", "+", "+"}},
    {OpKind::sample, 16, kNone, kNone, false, {"|", "|", "|"}},
};
constexpr int kNumValues = 17;

nds::ProgramSpec program_of(bool has_biases) {
  nds::ProgramSpec program;
  program.values.resize(kNumValues);
  for (const Op& op : kOps) {
    nds::OpSpec& spec = program.ops.emplace_back();
    spec.kind = op.kind;
    spec.x = op.x;
    spec.b = op.b;
    spec.out = op.out;
    spec.partial = op.partial;
    if (has_biases && op.kind == OpKind::all_reduce) spec.bias = 0;
  }
  return program;
}

// The values of a run in memory of their own.
void check_run(const std::set<int>& values, const nds::ArenaPlan& plan, const std::vector<int64_t>& sizes) {
  for (const int a : values) {
    for (const int b : values) {
      const bool apart = plan.offsets[a] + sizes[a] <= plan.offsets[b] || plan.offsets[b] + sizes[b] <= plan.offsets[a];
      expect(a == b || apart, "values " + std::to_string(a) + " and " + std::to_string(b) + " apart");
    }
  }
}

void check(int which, bool has_biases, bool is_alone) {
  const nds::ProgramSpec program = program_of(has_biases);
  const nds::cpu::Fusion fusion = nds::cpu::find_fusion(program, is_alone);
  std::vector<int64_t> sizes;
  for (int v = 0; v < kNumValues; v++) sizes.push_back(fusion.held_in[v] == v ? 64 * (1 + v * 5 % 7) : 0);
  const std::vector<nds::ValueUse> uses = nds::cpu::fused_uses(program, fusion);
  const nds::ArenaPlan plan = nds::plan_arena(uses, sizes);
  std::set<int> run;
  for (size_t i = 0; i < program.ops.size(); i++) {
    const std::string expected = kOps[i].joins[which], name = "operator " + std::to_string(i);
    expect(fusion.idle[i] == expected.empty(), name + (expected.empty() ? " to be idle" : " to be none that is idle"));
    if (expected.empty()) continue;
    expect(fusion.joins[i] == (expected == "+"), name + " to be as listed");
    // The product of a linear comes after a barrier, whether its quantization joins or not.
    if (!fusion.joins[i] || program.ops[i].kind == OpKind::linear) run.clear();
    for (const int value : uses[i].reads) run.insert(value);
    if (uses[i].write != kNone) run.insert(uses[i].write);
    check_run(run, plan, sizes);
  }
}

}  // namespace

int main() {
  check(0, false, true);
  check(1, true, true);
  check(2, false, false);
  std::puts("ok");
}
