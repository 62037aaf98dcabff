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
        is_int8_(is_int8(panel.w.format)),
        tile_bytes_(is_int8_ ? 1024 : 512),
        // What a tile stores is q - z + this; with zero points, q as it is, or from 0 on where it is signed.
        offset_(is_int8_ ? 128 : 8),
        has_zeros_(panel.w.format == WeightFormat::int4_zero || panel.w.format == WeightFormat::int8_zero),
        unsigned_by_(panel.slice.integers->layout == IntegerLayout::bytes ? 128 : 0),
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
    uint8_t* const tail = out_ + num_tiles * tile_bytes_;
    std::memset(tail, 0, static_cast<size_t>(panel_.w.tail_bytes));
    // What tiles hold where there is no weight: with zero points, activations are zero there.
    uint8_t values[kMaxGroup];
    const uint8_t none = has_zeros_ ? 0 : static_cast<uint8_t>(offset_);
    for (int row = 0; row < kPanel; row++) {
      std::memset(values, none, sizeof(values));
      if (row < panel_.num_rows) {
        const int64_t matrix_row = panel_.slice.row_begin + panel_.first_row + row;
        const int zero = reader_.zero_of(matrix_row, group);
        find_values(row, first, count, has_zeros_ ? unsigned_by_ : offset_ - zero, values);
        store_scale(reader_.scale_of(matrix_row, group), row, tail);
        if (has_zeros_) store_zero(zero + unsigned_by_, row, tail);
      }
      for (int tile = 0; tile < num_tiles; tile++) store_tile(values + tile * kTile, row, out_ + tile * tile_bytes_);
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

  // values [count] = the integers of a row at these positions, moved by `delta`.
  void find_values(int row, int64_t first, int count, int delta, uint8_t* values) {
    const int16_t* const codes = codes_ + row * panel_.slice.num_slice_cols();
    int all = 0;
    if (panel_.w.columns == nullptr) {
      for (int i = 0; i < count; i++) {
        const int value = codes[first + i] + delta;
        all |= value;
        values[i] = static_cast<uint8_t>(value);
      }
    } else {
      for (int i = 0; i < count; i++) {
        const int32_t column = panel_.w.columns[first + i];
        if (column < 0) continue;
        const int value = codes[column] + delta;
        all |= value;
        values[i] = static_cast<uint8_t>(value);
      }
    }
    if ((all & ~(is_int8_ ? 255 : 15)) != 0) problem_ = CodeProblem::format;
  }

  // A row's 32 values in its tile: quads of bytes, or two quads to four bytes.
  void store_tile(const uint8_t* values, int row, uint8_t* tile) const {
    uint32_t quads[kTile / 4];
    std::memcpy(quads, values, sizeof(quads));
    for (int p = 0; p < (is_int8_ ? 8 : 4); p++) {
      const uint32_t bytes = is_int8_ ? quads[p] : quads[2 * p] | quads[2 * p + 1] << 4;
      std::memcpy(tile + p * 128 + row * 4, &bytes, 4);
    }
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
    if (zero < 0 || zero > (is_int8_ ? 256 : 16)) problem_ = CodeProblem::format;
    const int size = is_int8_ ? 2 : 1;
    const uint16_t bits = static_cast<uint16_t>(zero);
    std::memcpy(tail + panel_.w.tail_bytes - (kPanel - row) * size, &bits, static_cast<size_t>(size));
  }

  const IntegerReader& reader_;
  const CodePanel& panel_;
  const int16_t* const codes_;
  const bool is_int8_;
  const int64_t tile_bytes_;
  const int offset_;
  const bool has_zeros_;
  const int unsigned_by_;
  uint8_t* out_;
  CodeProblem problem_ = CodeProblem::none;
};

}  // namespace

CodeProblem pack_codes(const IntegerReader& reader, const CodePanel& panel, int16_t* codes) {
  reader.read_codes(panel.first_row, panel.num_rows, codes, panel.slice.num_slice_cols());
  return PanelPacker(reader, panel, codes).run();
}

}  // namespace nds::cpu
