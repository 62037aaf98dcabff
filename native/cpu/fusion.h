// Operators that run as one: a product of gate and up, and the silu_mul after it.
#pragma once
#include <vector>

#include "core/program/arena.h"
#include "core/program/program.h"

namespace nds::cpu {

// [num_ops] whether a linear runs as one with the silu_mul right after it, the only reader of its product.
std::vector<bool> find_gated(const ProgramSpec& program);

// Values that the operators read and write where those of find_gated run as one: the second of them does nothing, and
// their product lives nowhere.
std::vector<ValueUse> fused_uses(const ProgramSpec& program, const std::vector<bool>& gated);

}  // namespace nds::cpu
