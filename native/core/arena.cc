// Where each value of a program lies in one scratch buffer: values that are never alive together share memory.
#include "core/arena.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace nds {
namespace {

struct Lifetime {
  int first = -1, last = -1;
};

std::vector<Lifetime> lifetimes(const ProgramSpec& program) {
  std::vector<Lifetime> lives(program.values.size());
  for (int i = 0; i < static_cast<int>(program.ops.size()); i++) {
    const OpSpec& op = program.ops[i];
    for (const int value : {op.x, op.b}) {
      if (value == kNone) continue;
      if (lives[value].first < 0)
        throw Error("ERR_INTERNAL",
                    "Expected value " + std::to_string(value) + " to be written before operator " + std::to_string(i));
      lives[value].last = i;
    }
    if (op.out == kNone) continue;
    if (lives[op.out].first >= 0)
      throw Error("ERR_INTERNAL", "Expected value " + std::to_string(op.out) + " to be written once");
    lives[op.out] = {i, i};
  }
  return lives;
}

}  // namespace

ArenaPlan plan_arena(const ProgramSpec& program, const std::vector<int64_t>& sizes) {
  const std::vector<Lifetime> lives = lifetimes(program);
  ArenaPlan plan;
  plan.offsets.assign(sizes.size(), 0);
  std::vector<int> placed;  // in order of offset
  for (int v = 0; v < static_cast<int>(sizes.size()); v++) {
    // First gap that is free during the whole life of v.
    int64_t offset = 0;
    for (const int other : placed) {
      const bool together = lives[other].first <= lives[v].last && lives[v].first <= lives[other].last;
      if (!together) continue;
      if (offset + sizes[v] <= plan.offsets[other]) break;
      offset = std::max(offset, (plan.offsets[other] + sizes[other] + 63) / 64 * 64);
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
