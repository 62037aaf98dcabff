// Rows of a tensor slice in the type in which the model keeps them, converted where they are stored in another.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "core/memory.h"
#include "core/program/fp8_reader.h"
#include "core/program/integer_reader.h"
#include "core/program/program.h"

namespace nds {

class SliceReader {
 public:
  // dtype is that of the slice's values, or f32; slice and files outlive the reader.
  // @throws Error ERR_CHECKPOINT unless the slice and its scales lie inside their files.
  SliceReader(const std::vector<MappedFile>& files, const TensorSlice& slice, DType dtype);

  // The slice's first element, at a row stride of num_cols elements, where rows are stored as they are kept; else null.
  const uint8_t* in_place() const { return is_stored_so_ ? source_ : nullptr; }

  // out [num_rows, out_ld], of which the slice's columns are written: its rows from first_row on. Other types are
  // widened exactly. An FP8 value is bf16(float(w) * float(scale)): the product is rounded to fp32, then to the nearest
  // bf16, ties to even. A NaN is kept as a NaN and a value beyond bf16 becomes infinite, as PyTorch has it. One stored
  // as an integer is read as IntegerReader has it.
  void read(int64_t first_row, int64_t num_rows, uint8_t* out, int64_t out_ld) const;

 private:
  template <typename Out>
  void read_fp8(int64_t first_row, int64_t num_rows, Out* out, int64_t out_ld) const;

  const TensorSlice& slice_;
  const DType dtype_;
  const bool is_stored_so_;
  const uint8_t* const source_;
  std::optional<Fp8Reader> fp8_;
  std::optional<IntegerReader> integers_;
};

}  // namespace nds
