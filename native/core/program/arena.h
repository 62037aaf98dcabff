// Offsets of a program's values in one scratch buffer; values whose lives do not overlap share memory.
#pragma once
#include <cstdint>
#include <vector>

#include "core/program/program.h"

namespace nds {

struct ArenaPlan {
  std::vector<int64_t> offsets;  // [num_values] bytes, 64-byte aligned
  int64_t size = 0;
};

// Values that one operator reads and writes. Other parts of it may still run during the operators up to `until`.
struct ValueUse {
  std::vector<int> reads;
  int write = kNone;
  int until = kNone;
};
std::vector<ValueUse> value_uses(const ProgramSpec& program);

// sizes: [num_values] bytes. A value lives from the operator that writes it to the last during which one reads it.
// @throws Error ERR_INTERNAL if an operator reads a value that no earlier one wrote.
ArenaPlan plan_arena(const std::vector<ValueUse>& ops, const std::vector<int64_t>& sizes);

}  // namespace nds
