// How a rank runs the operators of a program: which run as one, which do nothing, and which need no barrier in between.
#pragma once
#include <vector>

#include "core/program/arena.h"
#include "core/program/program.h"

namespace nds::cpu {

struct Fusion {
  std::vector<bool> gated;  // [num_ops] a linear, which runs as one with the silu_mul right after it, its only reader
  std::vector<bool> idle;   // [num_ops] does nothing: such a silu_mul, an all_reduce of one rank without a bias
  // [num_ops] it follows the operator before it without a barrier: of all that operators wrote since the last barrier,
  // part p reads no rows but those of part p. All kernels divide rows by share_of. Of a linear this holds for its
  // quantization; a barrier comes before its product.
  std::vector<bool> joins;
  // [num_values] the value whose memory it takes: itself, what an idle all_reduce reads, kNone for a gated product
  std::vector<int> held_in;
};
Fusion find_fusion(const ProgramSpec& program, bool is_alone);

// Values that the operators read and write, and until when.
std::vector<ValueUse> fused_uses(const ProgramSpec& program, const Fusion& fusion);

}  // namespace nds::cpu
