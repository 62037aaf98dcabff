// Checks that the operators of a program fit its values and weights: kernels trust every shape.
#pragma once
#include "core/program/program.h"

namespace nds {

// @throws Error ERR_INTERNAL naming the first operator or weight that does not fit, and what was expected.
void check_program(const ProgramSpec& program);

}  // namespace nds
