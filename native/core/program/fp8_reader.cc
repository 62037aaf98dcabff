// The codes and scales of a matrix that is stored as float8_e4m3.
#include "core/program/fp8_reader.h"

#include <string>

#include "core/convert.h"
#include "core/error.h"
#include "core/program/slice_source.h"

namespace nds {
namespace {

// The scales that the rows of a slice need lie inside their file.
const uint8_t* scales_source(const std::vector<MappedFile>& files, const TensorSlice& slice) {
  const Fp8Scales& scales = *slice.fp8;
  const MappedFile& file = files.at(scales.file);
  const int64_t num_rows = (slice.row_end + scales.rows_per_scale - 1) / scales.rows_per_scale;
  const int64_t num_cols = (slice.num_cols + scales.cols_per_scale - 1) / scales.cols_per_scale;
  const int64_t end = scales.byte_offset + num_rows * num_cols * static_cast<int64_t>(dtype_size(scales.dtype));
  if (end > static_cast<int64_t>(file.size())) {
    throw Error("ERR_CHECKPOINT", "Expected the scales of tensor " + slice.name + " to end at byte " +
                                      std::to_string(end) + " of their file but received a file of " +
                                      std::to_string(file.size()) + " bytes");
  }
  return file.data() + scales.byte_offset;
}

}  // namespace

Fp8Reader::Fp8Reader(const std::vector<MappedFile>& files, const TensorSlice& slice)
    : slice_(slice), codes_(slice_source(files.at(slice.file), slice)), scales_(scales_source(files, slice)) {}

float Fp8Reader::scale_of(int64_t row, int64_t col) const {
  const Fp8Scales& scales = *slice_.fp8;
  const int64_t scale_cols = (slice_.num_cols + scales.cols_per_scale - 1) / scales.cols_per_scale;
  const int64_t index = row / scales.rows_per_scale * scale_cols + col / scales.cols_per_scale;
  float scale;
  widen(scales_ + index * static_cast<int64_t>(dtype_size(scales.dtype)), scales.dtype, 1, &scale);
  return scale;
}

}  // namespace nds
