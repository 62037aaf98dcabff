// Packs the integers of a checkpoint as they are, without rounding: the layout of packed_linear.h.
#pragma once
#include <cstdint>

#include "core/program/integer_reader.h"
#include "core/program/packed_linear.h"
#include "core/program/program.h"

namespace nds::cpu {

// Rows of one piece that fill a panel of w.
struct CodePanel {
  const PackedLinear& w;
  const TensorSlice& slice;
  int64_t first_row;  // of the slice
  int num_rows;       // 1 … 32
  int panel;
};

// What keeps integers from being packed: a scale of which 256 times is not an fp16, or infinite; a group of columns
// with several scales, or integers beyond w.format, which a program must not ask for. Of 8-bit floats: a scale beyond
// the limits of pack_fp8.h.
enum class CodeProblem { none, scale, format };

// Packs a panel; codes [32, num_slice_cols] is scratch.
CodeProblem pack_codes(const IntegerReader& reader, const CodePanel& panel, int16_t* codes);

}  // namespace nds::cpu
