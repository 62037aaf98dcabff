// Rows of a matrix that is stored as integers with scales, for any slice of rows and columns: bf16((q - z) * scale), or
// q, z and scale as they are.
#include "core/program/integer_reader.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "core/convert.h"
#include "core/error.h"

namespace nds {
namespace {

// Integers that are unpacked together: a row of words of an input-major matrix is read once for 32 outputs.
constexpr int kTileRows = 32, kTileCols = 128;
// Integer i of a word holds row kAwqOrder[i] of its eight.
constexpr int kAwqOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};
constexpr int kAwqPlace[8] = {0, 4, 1, 5, 2, 6, 3, 7};  // the inverse

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

uint32_t word_at(const uint8_t* words, int64_t index) {
  uint32_t word;
  std::memcpy(&word, words + index * 4, 4);
  return word;
}

int64_t integer_bytes(const StoredIntegers& how, int64_t num_cols, int per_word) {
  switch (how.layout) {
    case IntegerLayout::bytes:
      return how.num_rows * num_cols;
    case IntegerLayout::rows:
      return how.num_rows * ceil_div(num_cols, per_word) * 4;
    case IntegerLayout::awq:
      return num_cols * (how.num_rows / per_word) * 4;
    case IntegerLayout::gptq:
      return num_cols / per_word * how.num_rows * 4;
  }
  throw Error("ERR_INTERNAL", "Expected a known layout of integers");
}

int64_t zero_bytes(const StoredIntegers& how, int64_t num_groups, int per_word) {
  if (how.layout == IntegerLayout::bytes)
    return (how.num_rows - 1) * how.scale_row_stride + (num_groups - 1) * how.scale_group_stride + 1;
  return ceil_div(how.num_rows, per_word) * num_groups * 4;
}

}  // namespace

IntegerReader::IntegerReader(const std::vector<MappedFile>& files, const TensorSlice& slice)
    : slice_(slice),
      how_(*slice.integers),
      num_groups_(ceil_div(slice.num_cols, how_.group_size)),
      per_word_(32 / how_.bits) {
  const bool is_input_major = how_.layout == IntegerLayout::awq || how_.layout == IntegerLayout::gptq;
  if (slice.row_end > how_.num_rows || (is_input_major && how_.num_rows % per_word_ != 0) ||
      (how_.layout == IntegerLayout::gptq && slice.num_cols % per_word_ != 0) ||
      (how_.layout == IntegerLayout::awq && how_.bits != 4))
    throw Error("ERR_INTERNAL", "Expected a slice of whole words inside tensor " + slice.name);
  const StoredPart integers{slice.file, slice.byte_offset};
  integers_ = source(files, integers, integer_bytes(how_, slice.num_cols, per_word_), "integers");
  const int64_t last = (how_.num_rows - 1) * how_.scale_row_stride + (num_groups_ - 1) * how_.scale_group_stride;
  scales_ = source(files, how_.scales, (last + 1) * static_cast<int64_t>(dtype_size(how_.scale_dtype)), "scales");
  if (how_.zeros) zeros_ = source(files, *how_.zeros, zero_bytes(how_, num_groups_, per_word_), "zero points");
  if (how_.group_index) group_index_ = source(files, *how_.group_index, slice.num_cols * 4, "group indices");
  check_scales();
  check_groups();
}

const uint8_t* IntegerReader::source(const std::vector<MappedFile>& files, const StoredPart& part, int64_t num_bytes,
                                     const char* what) const {
  const MappedFile& file = files.at(part.file);
  const int64_t end = part.byte_offset + num_bytes;
  if (end > static_cast<int64_t>(file.size())) {
    throw Error("ERR_CHECKPOINT", "Expected the " + std::string(what) + " of tensor " + slice_.name +
                                      " to end at byte " + std::to_string(end) +
                                      " of their file but received a file of " + std::to_string(file.size()) +
                                      " bytes");
  }
  return file.data() + part.byte_offset;
}

void IntegerReader::check_scales() const {
  for (int64_t row = slice_.row_begin; row < slice_.row_end; row++) {
    for (int64_t group = 0; group < num_groups_; group++) {
      const float scale = scale_of(row, group);
      if (std::isfinite(scale) && scale != 0) continue;
      throw Error("ERR_CHECKPOINT", "Expected finite scales other than 0 for tensor " + slice_.name + " but received " +
                                        std::to_string(scale) + " for row " + std::to_string(row) + ", group " +
                                        std::to_string(group));
    }
  }
}

void IntegerReader::check_groups() const {
  if (group_index_ == nullptr) return;
  for (int64_t col = 0; col < slice_.num_cols; col++) {
    const int64_t group = group_of(col);
    if (group >= 0 && group < num_groups_) continue;
    throw Error("ERR_CHECKPOINT", "Expected groups 0 to " + std::to_string(num_groups_ - 1) + " for tensor " +
                                      slice_.name + " but received " + std::to_string(group) + " for column " +
                                      std::to_string(col));
  }
}

int64_t IntegerReader::group_of(int64_t col) const {
  if (group_index_ == nullptr) return col / how_.group_size;
  return static_cast<int32_t>(word_at(group_index_, col));
}

// The first column from col on, at most end, that is of another group.
int64_t IntegerReader::run_end(int64_t col, int64_t end) const {
  const int64_t group = group_of(col);
  if (group_index_ == nullptr) return std::min(end, (group + 1) * how_.group_size);
  while (col < end && group_of(col) == group) col++;
  return col;
}

float IntegerReader::scale_of(int64_t row, int64_t group) const {
  const int64_t index = row * how_.scale_row_stride + group * how_.scale_group_stride;
  float scale;
  widen(scales_ + index * static_cast<int64_t>(dtype_size(how_.scale_dtype)), how_.scale_dtype, 1, &scale);
  return scale;
}

int IntegerReader::zero_of(int64_t row, int64_t group) const {
  if (zeros_ == nullptr) return how_.zero_offset;
  if (how_.layout == IntegerLayout::bytes) {
    const int64_t index = row * how_.scale_row_stride + group * how_.scale_group_stride;
    return static_cast<int8_t>(zeros_[index]) + how_.zero_offset;
  }
  // Words of rows: [n / per_word, groups] beside rows of integers, [groups, n / per_word] beside input-major ones.
  const int64_t row_word = row / per_word_;
  const int64_t index = how_.layout == IntegerLayout::rows ? row_word * num_groups_ + group
                                                           : group * (how_.num_rows / per_word_) + row_word;
  const int within = static_cast<int>(row % per_word_);
  const int place = how_.layout == IntegerLayout::awq ? kAwqPlace[within] : within;
  const uint32_t mask = (1U << how_.bits) - 1;
  return static_cast<int>(word_at(zeros_, index) >> (place * how_.bits) & mask) + how_.zero_offset;
}

// tile [num_rows][kTileCols] = the stored integers of these rows and columns of the whole matrix.
void IntegerReader::unpack(int64_t row, int num_rows, int64_t col, int num_cols, int16_t* tile) const {
  const uint32_t mask = (1U << how_.bits) - 1;
  const auto put = [&](int64_t r, int64_t c, uint32_t word, int place) {
    if (r < row || r >= row + num_rows || c < col || c >= col + num_cols) return;
    tile[(r - row) * kTileCols + (c - col)] = static_cast<int16_t>(word >> (place * how_.bits) & mask);
  };
  if (how_.layout == IntegerLayout::bytes) {
    for (int r = 0; r < num_rows; r++) {
      const auto* from = reinterpret_cast<const int8_t*>(integers_) + (row + r) * slice_.num_cols + col;
      for (int c = 0; c < num_cols; c++) tile[r * kTileCols + c] = from[c];
    }
    return;
  }
  if (how_.layout == IntegerLayout::awq) {
    const int64_t row_words = how_.num_rows / per_word_;
    for (int64_t c = col; c < col + num_cols; c++) {
      for (int64_t w = row / per_word_; w * per_word_ < row + num_rows; w++) {
        const uint32_t word = word_at(integers_, c * row_words + w);
        if (w * 8 >= row && w * 8 + 8 <= row + num_rows) {
          int16_t* const to = tile + (w * 8 - row) * kTileCols + (c - col);
          for (int i = 0; i < 8; i++) to[kAwqOrder[i] * kTileCols] = static_cast<int16_t>(word >> (i * 4) & 15);
        } else {
          for (int i = 0; i < per_word_; i++) put(w * per_word_ + kAwqOrder[i], c, word, i);
        }
      }
    }
    return;
  }
  // A word holds consecutive columns of one row.
  const bool by_rows = how_.layout == IntegerLayout::rows;
  const int64_t row_stride = by_rows ? ceil_div(slice_.num_cols, per_word_) : 1;
  const int64_t word_stride = by_rows ? 1 : how_.num_rows;
  for (int64_t w = col / per_word_; w * per_word_ < col + num_cols; w++) {
    for (int64_t r = row; r < row + num_rows; r++) {
      const uint32_t word = word_at(integers_, r * row_stride + w * word_stride);
      if (w * per_word_ >= col && (w + 1) * per_word_ <= col + num_cols) {
        int16_t* const to = tile + (r - row) * kTileCols + (w * per_word_ - col);
        for (int i = 0; i < per_word_; i++) to[i] = static_cast<int16_t>(word >> (i * how_.bits) & mask);
      } else {
        for (int i = 0; i < per_word_; i++) put(r, w * per_word_ + i, word, i);
      }
    }
  }
}

template <typename Tile>
void IntegerReader::for_tiles(int64_t first_row, int64_t num_rows, Tile tile) const {
  int16_t integers[kTileRows * kTileCols];
  const int64_t begin = slice_.row_begin + first_row, end = begin + num_rows;
  for (int64_t row = begin; row < end; row += kTileRows) {
    const int rows = static_cast<int>(std::min<int64_t>(kTileRows, end - row));
    for (int64_t col = slice_.col_begin; col < slice_.col_end; col += kTileCols) {
      const int cols = static_cast<int>(std::min<int64_t>(kTileCols, slice_.col_end - col));
      unpack(row, rows, col, cols, integers);
      tile(row, rows, col, cols, integers);
    }
  }
}

template <typename Out>
void IntegerReader::read(int64_t first_row, int64_t num_rows, Out* out, int64_t out_ld) const {
  const int64_t begin = slice_.row_begin + first_row;
  for_tiles(first_row, num_rows, [&](int64_t row, int rows, int64_t col, int cols, const int16_t* integers) {
    for (int r = 0; r < rows; r++) {
      Out* to = out + (row + r - begin) * out_ld + (col - slice_.col_begin);
      for (int64_t c = col, next; c < col + cols; c = next) {
        next = run_end(c, col + cols);
        const int64_t group = group_of(c);
        const float scale = scale_of(row + r, group);
        const int zero = zero_of(row + r, group);
        for (int64_t i = c - col; i < next - col; i++)
          store_bf16(f32_to_bf16(static_cast<float>(integers[r * kTileCols + i] - zero) * scale), to[i]);
      }
    }
  });
}

void IntegerReader::read_codes(int64_t first_row, int64_t num_rows, int16_t* out, int64_t out_ld) const {
  const int64_t begin = slice_.row_begin + first_row;
  for_tiles(first_row, num_rows, [&](int64_t row, int rows, int64_t col, int cols, const int16_t* integers) {
    for (int r = 0; r < rows; r++) {
      std::memcpy(out + (row + r - begin) * out_ld + (col - slice_.col_begin), integers + r * kTileCols,
                  static_cast<size_t>(cols) * sizeof(int16_t));
    }
  });
}

template void IntegerReader::read(int64_t, int64_t, uint16_t*, int64_t) const;
template void IntegerReader::read(int64_t, int64_t, float*, int64_t) const;

}  // namespace nds
