// Integer dots of tiles in plain C++; see linear_groups.h.
#pragma once
#include <cstdint>

#include "cpu/kernels/linear_rows.h"
#include "cpu/kernels/quantized_row.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

constexpr int kHalvesAtOnce = 2;

struct IntDots {
  // Of 16 columns, in memory: lanes of a vector cannot be named one by one.
  struct Dot {
    int32_t v[16];
  };
  static Dot begin(int32_t correction) {
    Dot dot;
    store_i32(dot.v, set1_i32(correction));
    return dot;
  }
  static I32x16 end(const Dot& dot, int32_t, const uint8_t*) { return load_i32(dot.v); }
  // quad [16][4] of weights, x [4].
  static void add_quad(Dot& dot, const uint8_t* quad, const int8_t* x) {
    for (int column = 0; column < 16; column++) {
      for (int k = 0; k < 4; k++) dot.v[column] += quad[column * 4 + k] * x[k];
    }
  }
};

struct Int8Dots : IntDots {
  static constexpr int kGroup = kMaxGroup, kTileBytes = 1024, kXTile = kInt8XTile, kZeroBytes = 0;

  template <int R, int H, typename Prefetch>
  static void add_tile(const uint8_t* w, const RowPointers<R>& x, Dot (&dots)[R][H], const Prefetch& prefetch_step) {
    for (int i = 0; i < 8; i++) prefetch_step(w + i * 128);
    for (int r = 0; r < R; r++) {
      const int8_t* const q = reinterpret_cast<const int8_t*>(x.row(r));
      for (int h = 0; h < H; h++) {
        for (int i = 0; i < 8; i++) add_quad(dots[r][h], w + i * 128 + h * 64, q + i * 4);
      }
    }
  }
};

struct Int4Dots : IntDots {
  static constexpr int kGroup = kTile, kTileBytes = 512, kXTile = kInt4XTile, kZeroBytes = 0;

  template <int R, int H, typename Prefetch>
  static void add_tile(const uint8_t* w, const RowPointers<R>& x, Dot (&dots)[R][H], const Prefetch& prefetch_step) {
    for (int p = 0; p < 4; p++) {
      prefetch_step(w + p * 128);
      for (int h = 0; h < H; h++) {
        uint8_t low[64], high[64];
        for (int i = 0; i < 64; i++) {
          low[i] = w[p * 128 + h * 64 + i] & 15;
          high[i] = w[p * 128 + h * 64 + i] >> 4;
        }
        for (int r = 0; r < R; r++) {
          const int8_t* const q = reinterpret_cast<const int8_t*>(x.row(r)) + p * 8;
          add_quad(dots[r][h], low, q);
          add_quad(dots[r][h], high, q + 4);
        }
      }
    }
  }
};

// Dots with zero points [16] of columns, of kBytes each; the correction is -(sum of q).
template <typename Dots, int kBytes>
struct ZeroDots : Dots {
  using typename Dots::Dot;
  static constexpr int kZeroBytes = kBytes;
  static Dot begin(int32_t) { return Dots::begin(0); }
  static I32x16 end(const Dot& dot, int32_t correction, const uint8_t* zeros) {
    int32_t moved[16];
    for (int column = 0; column < 16; column++) {
      const int zero = kBytes == 1 ? zeros[column] : read_u16(zeros + column * 2);
      moved[column] = dot.v[column] + zero * correction;
    }
    return load_i32(moved);
  }
};
using Int8ZeroDots = ZeroDots<Int8Dots, 2>;
using Int4ZeroDots = ZeroDots<Int4Dots, 1>;

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
