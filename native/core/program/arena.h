// Where each value of a program lies in one scratch buffer: values that are never alive together share memory.
#pragma once
#include <cstdint>
#include <vector>

#include "core/program/program.h"

namespace nds {

struct ArenaPlan {
  std::vector<int64_t> offsets;  // [num_values] bytes, 64-byte aligned
  int64_t size = 0;
};

// What one operator reads and writes.
struct ValueUse {
  std::vector<int> reads;
  int write = kNone;
};
std::vector<ValueUse> value_uses(const ProgramSpec& program);

// sizes[v] is the space of value v in bytes. A value lives from the operator that writes it to the last that reads it.
// @throws Error ERR_INTERNAL when an operator reads a value that none wrote before.
ArenaPlan plan_arena(const std::vector<ValueUse>& ops, const std::vector<int64_t>& sizes);

}  // namespace nds
