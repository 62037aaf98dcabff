// Offsets of a program's values in one scratch buffer; values whose lives do not overlap share memory.
#include "core/program/arena.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/round_up.h"

namespace nds {
namespace {

struct Lifetime {
  int first = -1, last = -1;
};

std::vector<Lifetime> lifetimes(const std::vector<ValueUse>& ops, size_t num_values) {
  std::vector<Lifetime> lives(num_values);
  for (int i = 0; i < static_cast<int>(ops.size()); i++) {
    const int end = std::max(i, ops[i].until);
    for (const int value : ops[i].reads) {
      if (lives[value].first < 0)
        throw Error("ERR_INTERNAL",
                    "Expected value " + std::to_string(value) + " to be written before operator " + std::to_string(i));
      lives[value].last = std::max(lives[value].last, end);
    }
    const int written = ops[i].write;
    if (written == kNone) continue;
    if (lives[written].first >= 0)
      throw Error("ERR_INTERNAL", "Expected value " + std::to_string(written) + " to be written once");
    lives[written] = {i, end};
  }
  return lives;
}

}  // namespace

std::vector<ValueUse> value_uses(const ProgramSpec& program) {
  std::vector<ValueUse> uses;
  for (const OpSpec& op : program.ops) {
    ValueUse& use = uses.emplace_back();
    for (const int value : {op.x, op.b}) {
      if (value != kNone) use.reads.push_back(value);
    }
    use.write = op.out;
  }
  return uses;
}

ArenaPlan plan_arena(const std::vector<ValueUse>& ops, const std::vector<int64_t>& sizes) {
  const std::vector<Lifetime> lives = lifetimes(ops, sizes.size());
  ArenaPlan plan;
  plan.offsets.assign(sizes.size(), 0);
  std::vector<int> placed;  // in order of offset
  for (int v = 0; v < static_cast<int>(sizes.size()); v++) {
    // First fit: the lowest gap that is free during the whole life of v.
    int64_t offset = 0;
    for (const int other : placed) {
      const bool together = lives[other].first <= lives[v].last && lives[v].first <= lives[other].last;
      if (!together) continue;
      if (offset + sizes[v] <= plan.offsets[other]) break;
      offset = std::max(offset, round_up(plan.offsets[other] + sizes[other], 64));
    }
    plan.offsets[v] = offset;
    plan.size = std::max(plan.size, offset + sizes[v]);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), v,
                                   [&plan](int a, int b) { return plan.offsets[a] < plan.offsets[b]; }),
                  v);
  }
  return plan;
}

}  // namespace nds
