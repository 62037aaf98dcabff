// Sums of quantized chunks: an exact integer dot of each group, then fma(float(dot), x_scale * w_scale, sum). Where
// tiles have multipliers, the dot is the sum of multiplier * (dot of a tile), of at most 128 * 120 * 127 < 2^24 and
// hence as exact in fp32.
#pragma once
#include <cstdint>

#include "cpu/kernels/linear_rows.h"
#include "cpu/kernels/quantized_row.h"
#include "cpu/kernels/simd.h"
#if NDS_AVX2 || NDS_AVX512
#include "cpu/kernels/dots_x86.h"
#elif NDS_NEON
#include "cpu/kernels/dots_neon.h"
#else
#include "cpu/kernels/dots_portable.h"
#endif

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Whether weights are multiplied as they are stored, so that no register holds parts of them.
template <typename Format>
constexpr bool kMultipliesBytes = NDS_VNNI && Format::kTileBytes == kTile * kPanel;
// Max rows of a tile, whose dots of the columns that are summed side by side stay in registers.
template <typename Format>
constexpr int kGroupRows = NDS_AVX512                 ? 8
                           : kMultipliesBytes<Format> ? 6
                                                      : 4;

// Scales of 16 columns, from `column` of the panel on.
inline F32x16 load_scales(const uint8_t* scales, int column, bool is_wide) {
  if (is_wide) return load(reinterpret_cast<const float*>(scales) + column);
  return load_f16(reinterpret_cast<const uint16_t*>(scales) + column);
}

// Groups of any number of tiles.
template <typename Dots>
struct WideGroups : Dots {
  static constexpr int kGroup = kMaxGroup;
};
// Tiles of int4 with multipliers.
struct Int4TileDots : WideGroups<Int4Dots> {
  static constexpr bool kHasMultipliers = true;
};

// Format: Int8Dots, Int8ZeroDots, Int4Dots or Int4ZeroDots, which multiply tiles and keep the dots of 16 columns in a
// Dot, or one of the above made of them. Zero points of a column take kZeroBytes. Between products, add_tile calls
// prefetch_step(q) with each of the tile's runs of 128 bytes: prefetches in a burst would hold up the loads behind
// them.
template <typename Format>
struct GroupChunks {
  static constexpr bool kHasMultipliers = requires { Format::kHasMultipliers; };

  template <int R, typename Push>
  [[gnu::always_inline]] static void sum(const TileArgs& args, const Chunk& chunk, Cursor& cursor, Push push) {
    Sums<R> sums;
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) sums.v[r][0] = sums.v[r][1] = zero();
    const uint8_t* w = args.panel + chunk.offset;
    RowPointers<R> x(cursor.x, args.ldx);
    const int group = Format::kGroup == kTile ? kTile : args.w->group;
    for (int left = chunk.k_len; left > 0; left -= group) {
      const int num_tiles = tiles_of_group(left, group);
      const uint8_t* const scales = w + num_tiles * Format::kTileBytes;
#pragma GCC unroll 2
      for (int half = 0; half < 2; half += kHalvesAtOnce)
        sum_group<R>(w + half * 64, x, num_tiles, half, scales, args, cursor.ahead, sums);
      w = scales + args.w->tail_bytes + (kHasMultipliers ? num_tiles * kPanel : 0);
      x.advance(header_bytes_of(*args.w) + num_tiles * Format::kXTile);
    }
    cursor.x = x.row(0);
    push(0, sums);
  }

 private:
  static int header_bytes_of(const PackedLinear& w) { return header_bytes(kHasMultipliers, w.group); }

  // Columns of `half`, or of both halves.
  template <int R>
  [[gnu::always_inline]] static void sum_group(const uint8_t* w, RowPointers<R> x, int num_tiles, int half,
                                               const uint8_t* scales, const TileArgs& args, const uint8_t*& ahead,
                                               Sums<R>& sums) {
    if constexpr (kHasMultipliers) return sum_tiles<R>(w, x, num_tiles, half, scales, args, ahead, sums);
    const RowPointers<R> header = x;
    typename Format::Dot dots[R][kHalvesAtOnce];
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) {
      for (int h = 0; h < kHalvesAtOnce; h++) dots[r][h] = Format::begin(read_i32(x.row(r) + 4));
    }
    x.advance(header_bytes_of(*args.w));
    add_tiles(w, x, num_tiles, args, ahead, dots);
#pragma GCC unroll 2
    for (int h = 0; h < kHalvesAtOnce; h++) {
      const bool is_wide = args.w->has_wide_scales;
      const F32x16 w_scale = load_scales(scales, (half + h) * 16, is_wide);
      const uint8_t* const zeros = scales + kPanel * (is_wide ? 4 : 2) + (half + h) * 16 * Format::kZeroBytes;
#pragma GCC unroll 12
      for (int r = 0; r < R; r++) {
        const F32x16 x_scale = as_f32(set1_i32(read_i32(header.row(r))));
        const F32x16 dot = to_f32(Format::end(dots[r][h], read_i32(header.row(r) + 4), zeros));
        sums.v[r][half + h] = fma(dot, x_scale * w_scale, sums.v[r][half + h]);
      }
    }
  }

  // The same with multipliers.
  template <int R>
  [[gnu::always_inline]] static void sum_tiles(const uint8_t* w, RowPointers<R> x, int num_tiles, int half,
                                               const uint8_t* scales, const TileArgs& args, const uint8_t*& ahead,
                                               Sums<R>& sums) {
    const RowPointers<R> header = x;
    RowPointers<R> correction = x;
    correction.advance(sizeof(GroupHeader));
    x.advance(header_bytes_of(*args.w));
    const int8_t* multipliers = reinterpret_cast<const int8_t*>(scales) + kPanel * 2 + half * 16;
    F32x16 totals[R][kHalvesAtOnce];
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) {
      for (int h = 0; h < kHalvesAtOnce; h++) totals[r][h] = zero();
    }
    for (int tile = 0; tile < num_tiles; tile++) {
      typename Format::Dot dots[R][kHalvesAtOnce];
#pragma GCC unroll 12
      for (int r = 0; r < R; r++) {
        for (int h = 0; h < kHalvesAtOnce; h++) dots[r][h] = Format::begin(read_i32(correction.row(r)));
      }
      add_tiles(w, x, 1, args, ahead, dots);
#pragma GCC unroll 2
      for (int h = 0; h < kHalvesAtOnce; h++) {
        const F32x16 multiplier = to_f32(load_i8(multipliers + h * 16));
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
          const F32x16 dot = to_f32(Format::end(dots[r][h], read_i32(correction.row(r)), nullptr));
          totals[r][h] = fma(dot, multiplier, totals[r][h]);
        }
      }
      w += Format::kTileBytes;
      x.advance(Format::kXTile);
      correction.advance(4);
      multipliers += kPanel;
    }
#pragma GCC unroll 2
    for (int h = 0; h < kHalvesAtOnce; h++) {
      const F32x16 w_scale = load_scales(scales, (half + h) * 16, false);
#pragma GCC unroll 12
      for (int r = 0; r < R; r++) {
        const F32x16 x_scale = as_f32(set1_i32(read_i32(header.row(r))));
        sums.v[r][half + h] = fma(totals[r][h], x_scale * w_scale, sums.v[r][half + h]);
      }
    }
  }

  template <int R>
  [[gnu::always_inline]] static void add_tiles(const uint8_t* w, const RowPointers<R>& x, int num_tiles,
                                               const TileArgs& args, const uint8_t*& ahead,
                                               typename Format::Dot (&dots)[R][kHalvesAtOnce]) {
#if NDS_NEON_I8MM
    join_rows(dots);
#endif
    if (args.prefetch_step > 0) {
      add_tiles<true>(w, x, num_tiles, args.prefetch_step, ahead, dots);
    } else {
      add_tiles<false>(w, x, num_tiles, 0, ahead, dots);
    }
#if NDS_NEON_I8MM
    split_rows(dots);
#endif
  }

  template <bool kPrefetches, int R>
  [[gnu::always_inline]] static void add_tiles(const uint8_t* w, RowPointers<R> x, int num_tiles, int64_t prefetch_step,
                                               const uint8_t*& ahead, typename Format::Dot (&dots)[R][kHalvesAtOnce]) {
    constexpr int64_t kLines = kHalvesAtOnce * 64, kSteps = Format::kTileBytes / 128;
    const int64_t step = prefetch_step < kSteps * kLines ? prefetch_step / kSteps : kLines;
    for (int tile = 0; tile < num_tiles; tile++) {
      Format::add_tile(w, x, dots, [&](const uint8_t* quads) {
        if constexpr (kPrefetches) {
          for (int64_t line = 0; line < kLines; line += 64) {
            prefetch(quads + kNearAhead + line);
            prefetch_l2(ahead + line);
          }
          ahead += step;
        }
      });
      w += Format::kTileBytes;
      x.advance(Format::kXTile);
      if constexpr (kPrefetches) {
        prefetch(w + kNearAhead);
        prefetch_l2(ahead);
        ahead += prefetch_step - kSteps * step;
      }
    }
  }
};

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
