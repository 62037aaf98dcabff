// Packs the float8_e4m3 of a checkpoint as they are: the layout of packed_linear.h.
#pragma once
#include "core/program/fp8_reader.h"
#include "core/program/packed_linear.h"
#include "cpu/pack_codes.h"

namespace nds::cpu {

// Least and greatest magnitude of a scale, unless it is 0 or a NaN: no value is then denormal or infinite.
constexpr float kLeastFp8Scale = 0x1p-100f, kMostFp8Scale = 128;

// Packs a panel.
CodeProblem pack_fp8(const Fp8Reader& reader, const CodePanel& panel);

}  // namespace nds::cpu
