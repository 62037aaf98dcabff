// Rows of a tensor slice in the type in which the model keeps them, converted where they are stored in another.
#include "core/program/slice_reader.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "core/convert.h"
#include "core/error.h"
#include "core/program/slice_source.h"

namespace nds {
namespace {

// 1 sign, 4 exponent (bias 7) and 3 mantissa bits; no infinity, and NaN is all ones.
float e4m3_to_f32(int code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  float value = NAN;
  if (exponent == 0) value = std::ldexp(static_cast<float>(mantissa), -9);
  if (exponent != 0 && (code & 127) != 127) value = std::ldexp(static_cast<float>(mantissa | 8), exponent - 10);
  return (code & 128) != 0 ? -value : value;
}

struct E4m3Values {
  float of[256];
  E4m3Values() {
    for (int code = 0; code < 256; code++) of[code] = e4m3_to_f32(code);
  }
};

// out [256] = the value of each code under one scale.
template <typename Out>
void scaled_values(float scale, Out* out) {
  static const E4m3Values values;
  for (int code = 0; code < 256; code++) store_bf16(f32_to_bf16(values.of[code] * scale), out[code]);
}

}  // namespace

SliceReader::SliceReader(const std::vector<MappedFile>& files, const TensorSlice& slice, DType dtype)
    : slice_(slice),
      dtype_(dtype),
      is_stored_so_(slice.dtype == dtype && !slice.is_encoded()),
      source_(slice.integers ? nullptr : slice_source(files.at(slice.file), slice)) {
  if (slice.integers) integers_.emplace(files, slice);
  if (slice.fp8) fp8_.emplace(files, slice);
}

void SliceReader::read(int64_t first_row, int64_t num_rows, uint8_t* out, int64_t out_ld) const {
  if (integers_ && dtype_ == DType::f32)
    return integers_->read(first_row, num_rows, reinterpret_cast<float*>(out), out_ld);
  if (integers_) return integers_->read(first_row, num_rows, reinterpret_cast<uint16_t*>(out), out_ld);
  if (slice_.fp8 && dtype_ == DType::f32) return read_fp8(first_row, num_rows, reinterpret_cast<float*>(out), out_ld);
  if (slice_.fp8) return read_fp8(first_row, num_rows, reinterpret_cast<uint16_t*>(out), out_ld);
  const int64_t size = static_cast<int64_t>(dtype_size(dtype_)), count = slice_.num_slice_cols();
  for (int64_t i = 0; i < num_rows; i++) {
    const uint8_t* row = source_ + (first_row + i) * slice_.num_cols * slice_.stored_size();
    uint8_t* to = out + i * out_ld * size;
    if (is_stored_so_) {
      std::memcpy(to, row, static_cast<size_t>(count * size));
    } else {
      widen(row, slice_.dtype, count, reinterpret_cast<float*>(to));
    }
  }
}

// Block by block of one scale, so that the values of all codes are computed once for it.
template <typename Out>
void SliceReader::read_fp8(int64_t first_row, int64_t num_rows, Out* out, int64_t out_ld) const {
  const Fp8Scales& scales = *slice_.fp8;
  const int64_t begin = slice_.row_begin + first_row, end = begin + num_rows;
  for (int64_t row = begin, row_end; row < end; row = row_end) {
    const int64_t scale_row = row / scales.rows_per_scale;
    row_end = std::min(end, (scale_row + 1) * scales.rows_per_scale);
    for (int64_t col = slice_.col_begin, col_end; col < slice_.col_end; col = col_end) {
      const int64_t scale_col = col / scales.cols_per_scale;
      col_end = std::min(slice_.col_end, (scale_col + 1) * scales.cols_per_scale);
      Out values[256];
      scaled_values(fp8_->scale_of(row, col), values);
      for (int64_t r = row; r < row_end; r++) {
        const uint8_t* from = source_ + (r - slice_.row_begin) * slice_.num_cols + (col - slice_.col_begin);
        Out* to = out + (r - begin) * out_ld + (col - slice_.col_begin);
        for (int64_t c = 0; c < col_end - col; c++) to[c] = values[from[c]];
      }
    }
  }
}

}  // namespace nds
