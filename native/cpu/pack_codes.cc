// Packs the integers of a checkpoint as they are, without rounding: the layout of packed_linear.h.
#include "cpu/pack_codes.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/convert.h"

namespace nds::cpu {
namespace {

// Packs one group of a panel after the other.
class PanelPacker {
 public:
  PanelPacker(const IntegerReader& reader, const CodePanel& panel, const int16_t* codes)
      : reader_(reader),
        panel_(panel),
        codes_(codes),
        is_int8_(panel.w.format == WeightFormat::int8),
        tile_bytes_(is_int8_ ? 1024 : 512),
        // What a tile stores is q - z + this; with zero points, q as it is.
        offset_(is_int8_ ? 128 : 8),
        has_zeros_(panel.w.format == WeightFormat::int4_zero),
        out_(panel.w.data + panel.panel * panel.w.panel_bytes) {}

  CodeProblem run() {
    const PackedLinear& w = panel_.w;
    for (int c = 0; c < w.num_chunks; c++) {
      for (int k = 0; k < w.chunks[c].k_len; k += w.group)
        pack_group(w.chunks[c].k_begin + k, std::min(w.group, w.chunks[c].k_len - k));
    }
    return problem_;
  }

 private:
  // Column of the slice at a position, or -1.
  int64_t column_at(int64_t position) const {
    return panel_.w.columns == nullptr ? position : panel_.w.columns[position];
  }

  void pack_group(int64_t first, int count) {
    const int num_tiles = (count + kTile - 1) / kTile;
    const int64_t group = group_of(first, count);
    if (group < 0) {
      problem_ = CodeProblem::format;
      return;
    }
    // The value of zero at positions without a column; with zero points, activations there are zero all the same.
    std::memset(out_, is_int8_ ? 0x80 : has_zeros_ ? 0 : 0x88, static_cast<size_t>(num_tiles * tile_bytes_));
    uint8_t* const tail = out_ + num_tiles * tile_bytes_;
    std::memset(tail, 0, static_cast<size_t>(panel_.w.tail_bytes));
    for (int row = 0; row < panel_.num_rows; row++) {
      const int64_t matrix_row = panel_.slice.row_begin + panel_.first_row + row;
      const int zero = reader_.zero_of(matrix_row, group);
      for (int i = 0; i < count; i++) {
        const int64_t column = column_at(first + i);
        if (column >= 0)
          store(row, i, codes_[row * panel_.slice.num_slice_cols() + column] + (has_zeros_ ? 0 : offset_ - zero));
      }
      store_scale(reader_.scale_of(matrix_row, group), row, tail);
      if (has_zeros_) store_zero(zero, row, tail);
    }
    out_ = tail + panel_.w.tail_bytes;
  }

  // The checkpoint's group of the columns at these positions; -1 if it is not one.
  int64_t group_of(int64_t first, int count) const {
    int64_t group = -1;
    for (int i = 0; i < count; i++) {
      const int64_t column = column_at(first + i);
      if (column < 0) continue;
      const int64_t own = reader_.group_of(panel_.slice.col_begin + column);
      if (group >= 0 && own != group) return -1;
      group = own;
    }
    return group;
  }

  void store(int row, int position, int value) {
    if (value < 0 || value > (is_int8_ ? 255 : 15)) {
      problem_ = CodeProblem::format;
      return;
    }
    const int quad = position % kTile / 4;
    uint8_t* const tile = out_ + position / kTile * tile_bytes_;
    const int place = row * 4 + position % 4;
    if (is_int8_) {
      tile[quad * 128 + place] = static_cast<uint8_t>(value);
      return;
    }
    uint8_t& pair = tile[quad / 2 * 128 + place];
    pair = static_cast<uint8_t>(quad % 2 == 0 ? (pair & 0xf0) | value : (pair & 0x0f) | value << 4);
  }

  void store_scale(float scale, int row, uint8_t* tail) {
    const float kept = scale * 256;
    if (panel_.w.has_wide_scales) {
      std::memcpy(tail + row * 4, &kept, 4);
      if (!std::isfinite(kept)) problem_ = CodeProblem::scale;
      return;
    }
    uint16_t bits = 0;
    if (!f32_to_f16_exactly(kept, bits)) problem_ = CodeProblem::scale;
    std::memcpy(tail + row * 2, &bits, 2);
  }

  void store_zero(int zero, int row, uint8_t* tail) {
    if (zero < 0 || zero > 16) problem_ = CodeProblem::format;
    tail[panel_.w.tail_bytes - kPanel + row] = static_cast<uint8_t>(zero);
  }

  const IntegerReader& reader_;
  const CodePanel& panel_;
  const int16_t* const codes_;
  const bool is_int8_;
  const int64_t tile_bytes_;
  const int offset_;
  const bool has_zeros_;
  uint8_t* out_;
  CodeProblem problem_ = CodeProblem::none;
};

}  // namespace

CodeProblem pack_codes(const IntegerReader& reader, const CodePanel& panel, int16_t* codes) {
  reader.read_codes(panel.first_row, panel.num_rows, codes, panel.slice.num_slice_cols());
  return PanelPacker(reader, panel, codes).run();
}

}  // namespace nds::cpu
