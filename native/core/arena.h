// Where each value of a program lies in one scratch buffer: values that are never alive together share memory.
#pragma once
#include <cstdint>
#include <vector>

#include "core/program.h"

namespace nds {

struct ArenaPlan {
  std::vector<int64_t> offsets;  // [num_values] bytes, 64-byte aligned
  int64_t size = 0;
};

// sizes[v] is the space of value v in bytes. A value lives from the operator that writes it to the last that reads it.
// @throws Error ERR_INTERNAL when an operator reads a value that none wrote before.
ArenaPlan plan_arena(const ProgramSpec& program, const std::vector<int64_t>& sizes);

}  // namespace nds
