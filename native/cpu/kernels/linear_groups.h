// Sums of quantized chunks: an exact integer dot of each group, then fma(float(dot), x_scale * w_scale, sum).
#pragma once
#include <cstdint>

#include "cpu/kernels/linear_rows.h"
#include "cpu/kernels/quantized_row.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Integer dots of R rows with the 32 columns of a panel.
template <int R>
struct Dots {
  alignas(64) int32_t v[R][kPanel];
};

struct Int8Dots {
  static constexpr int kGroup = kInt8Group;
  static constexpr int kTileBytes = 1024;
  static constexpr int kXTile = kInt8XTile;
  static constexpr bool kManyRows = true;

  template <int R>
  static void add_tile(const uint8_t* w, const RowPointers<R>& x, Dots<R>& dots) {
    for (int r = 0; r < R; r++) {
      const int8_t* q = reinterpret_cast<const int8_t*>(x.row(r));
      for (int k = 0; k < kTile; k++) {
        for (int column = 0; column < kPanel; column++) {
          dots.v[r][column] += w[k / 4 * 128 + column * 4 + k % 4] * q[k];
        }
      }
    }
  }
};

struct Int4Dots {
  static constexpr int kGroup = kInt4Group;
  static constexpr int kTileBytes = 512;
  static constexpr int kXTile = kInt4XTile;
  static constexpr bool kManyRows = true;

  template <int R>
  static void add_tile(const uint8_t* w, const RowPointers<R>& x, Dots<R>& dots) {
    for (int r = 0; r < R; r++) {
      const int8_t* q = reinterpret_cast<const int8_t*>(x.row(r));
      for (int k = 0; k < kTile; k++) {
        for (int column = 0; column < kPanel; column++) {
          const int pair = w[k / 8 * 128 + column * 4 + k % 4];
          dots.v[r][column] += (k / 4 % 2 == 0 ? pair & 15 : pair >> 4) * q[k];
        }
      }
    }
  }
};

template <typename Format>
struct GroupChunks {
  static constexpr bool kManyRows = Format::kManyRows;

  template <int R>
  static void sum(const TileArgs& args, const Chunk& chunk, Cursor& cursor, Sums<R>& sums) {
    for (int r = 0; r < R; r++) sums.v[r][0] = sums.v[r][1] = zero();
    const uint8_t* w = args.panel + chunk.offset;
    RowPointers<R> x(cursor.x, args.ldx);
    for (int left = chunk.k_len; left > 0; left -= Format::kGroup) {
      Dots<R> dots;
      float scales[R];
      for (int r = 0; r < R; r++) {
        GroupHeader header;
        std::memcpy(&header, x.row(r), sizeof(header));
        scales[r] = header.scale;
        for (int32_t& dot : dots.v[r]) dot = header.correction;
      }
      x.advance(sizeof(GroupHeader));
      for (int k = 0; k < left && k < Format::kGroup; k += kTile) {
        Format::add_tile(w, x, dots);
        w += Format::kTileBytes;
        x.advance(Format::kXTile);
      }
      for (int r = 0; r < R; r++) {
        for (int half = 0; half < 2; half++) {
          const F32x16 w_scale = load_f16(reinterpret_cast<const uint16_t*>(w) + half * 16);
          const F32x16 dot = to_f32(load_i32(dots.v[r] + half * 16));
          sums.v[r][half] = fma(dot, set1(scales[r]) * w_scale, sums.v[r][half]);
        }
      }
      w += kPanel * 2;
    }
    cursor.x = x.row(0);
  }
};

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
