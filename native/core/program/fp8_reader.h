// The codes and scales of a matrix that is stored as float8_e4m3.
#pragma once
#include <cstdint>
#include <vector>

#include "core/memory.h"
#include "core/program/program.h"

namespace nds {

class Fp8Reader {
 public:
  // slice has fp8; it and files outlive the reader.
  // @throws Error ERR_CHECKPOINT unless the slice and its scales lie inside their files.
  Fp8Reader(const std::vector<MappedFile>& files, const TensorSlice& slice);

  // [num_slice_cols] of a row of the slice.
  const uint8_t* codes_of(int64_t slice_row) const { return codes_ + slice_row * slice_.num_cols; }
  // Of a row and a column of the whole matrix.
  float scale_of(int64_t row, int64_t col) const;

 private:
  const TensorSlice& slice_;
  const uint8_t* const codes_;
  const uint8_t* const scales_;  // of the whole matrix
};

}  // namespace nds
