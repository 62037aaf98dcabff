// Packs the float8_e4m3 of a checkpoint as they are: the layout of packed_linear.h.
#include "cpu/pack_fp8.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace nds::cpu {
namespace {

// Place of column k of a quad among its four codes.
constexpr int kPlaces[kFp8Quad] = {0, 2, 1, 3};

// Stores `count` codes of a row; whether one of them is a NaN.
bool store_codes(const uint8_t* codes, int count, uint8_t* out) {
  bool has_nan = false;
  for (int k = 0; k < count; k++) {
    has_nan = has_nan || (codes[k] & 127) == 127;
    out[k / kFp8Quad * kFp8Quad * kPanel + kPlaces[k % kFp8Quad]] = codes[k];
  }
  return has_nan;
}

bool is_held(float scale) {
  const float magnitude = std::fabs(scale);
  return std::isnan(scale) || scale == 0 || (magnitude >= kLeastFp8Scale && magnitude <= kMostFp8Scale);
}

}  // namespace

CodeProblem pack_fp8(const Fp8Reader& reader, const CodePanel& panel) {
  const PackedLinear& w = panel.w;
  uint8_t* const out = w.data + panel.panel * w.panel_bytes;
  std::memset(out, 0, static_cast<size_t>(w.panel_bytes));
  uint8_t* scales = out + w.decoded_bytes / 2;
  CodeProblem problem = CodeProblem::none;
  for (int c = 0; c < w.num_chunks; c++) {
    const Chunk& chunk = w.chunks[c];
    for (int k = 0, run; k < chunk.k_len; k += run, scales += kPanel * sizeof(float)) {
      const int column = chunk.k_begin + k;  // of the slice
      run = std::min(chunk.k_len - k, w.scale_cols - (w.first_col + column) % w.scale_cols);
      for (int row = 0; row < panel.num_rows; row++) {
        const int64_t slice_row = panel.first_row + row;
        float scale = reader.scale_of(panel.slice.row_begin + slice_row, panel.slice.col_begin + column);
        if (!is_held(scale)) problem = CodeProblem::scale;
        uint8_t* const codes = out + chunk.offset / 2 + k * kPanel + row * kFp8Quad;
        if (store_codes(reader.codes_of(slice_row) + column, run, codes) || std::isnan(scale))
          scale = std::numeric_limits<float>::quiet_NaN();
        scale *= 0x1p120f;
        std::memcpy(scales + row * sizeof(float), &scale, sizeof(float));
      }
    }
  }
  return problem;
}

}  // namespace nds::cpu
