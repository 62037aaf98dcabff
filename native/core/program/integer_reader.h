// Rows of a matrix that is stored as integers with scales, for any slice of rows and columns: bf16((q - z) * scale), or
// q, z and scale as they are.
#pragma once
#include <cstdint>
#include <vector>

#include "core/memory.h"
#include "core/program/program.h"

namespace nds {

class IntegerReader {
 public:
  // slice.integers is set; slice and files outlive the reader.
  // @throws Error ERR_CHECKPOINT unless integers, scales, zero points and group indices lie inside their files, scales
  // of its rows are finite and not zero, and group indices name groups; ERR_INTERNAL for a slice outside its matrix.
  IntegerReader(const std::vector<MappedFile>& files, const TensorSlice& slice);

  // out [num_rows, out_ld], of which the slice's columns are written: its rows from first_row on. q - z is exact, its
  // product with the scale is rounded to fp32, then to the nearest bf16, ties to even. Out is uint16_t (bf16) or float.
  template <typename Out>
  void read(int64_t first_row, int64_t num_rows, Out* out, int64_t out_ld) const;

  // out [num_rows, out_ld] = q of the slice's columns, as read; with IntegerLayout::bytes signed, else from 0 on.
  void read_codes(int64_t first_row, int64_t num_rows, int16_t* out, int64_t out_ld) const;

  // Group of a column of the whole matrix; scale and zero point of a row of the whole matrix and a group.
  int64_t group_of(int64_t col) const;
  float scale_of(int64_t row, int64_t group) const;
  int zero_of(int64_t row, int64_t group) const;

 private:
  const uint8_t* source(const std::vector<MappedFile>& files, const StoredPart& part, int64_t num_bytes,
                        const char* what) const;
  void check_scales() const;
  void check_groups() const;
  // tile(row, num_rows, col, num_cols, integers [num_rows][kTileCols]) for all tiles of these rows of the slice.
  template <typename Tile>
  void for_tiles(int64_t first_row, int64_t num_rows, Tile tile) const;
  void unpack(int64_t row, int num_rows, int64_t col, int num_cols, int16_t* tile) const;
  int64_t run_end(int64_t col, int64_t end) const;

  const TensorSlice& slice_;
  const StoredIntegers& how_;
  const int64_t num_groups_;
  const int per_word_;  // integers in 32 bits
  const uint8_t *integers_ = nullptr, *scales_ = nullptr, *zeros_ = nullptr, *group_index_ = nullptr;
};

}  // namespace nds
