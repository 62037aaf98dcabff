// What a tile of linear works on: its arguments, its sums, and the rows of x.
#pragma once
#include <cstdint>
#include <cstring>

#include "core/program/packed_linear.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

#if NDS_AMX
class AmxState;
#endif

// Prefetch distance from L2 to L1, bytes. Weights come to L2 from further ahead, by a cursor: the few misses that L1
// can have pending would not cover the time that memory takes.
constexpr int kNearAhead = 1024;

// A tile: some rows of x, one panel of W.
struct TileArgs {
  const PackedLinear* w;
  const uint8_t* panel;
  const uint8_t* x;  // first row of the tile
  int64_t ldx;       // bytes
  float* y;          // [rows, 32] at the panel's columns; roots are root_stride apart
  int64_t ldy;
  int64_t root_stride;
  const float* bias;        // [32] of the panel, or null
  const uint8_t* prefetch;  // first address prefetched
  int64_t prefetch_step;    // bytes by which it advances per k-step, in each pass over one or both halves; 0 = it stays
  // fp8, and int4 on AMX: the panel of codes, each chunk of which (fp8: to `decoded`) or group is decoded before it is
  // summed; null = `panel` is decoded.
  const uint8_t* codes;
  uint8_t* decoded;
#if NDS_AMX
  int rows;
  AmxState* amx;  // of this thread
#endif
};

// What a tile carries from chunk to chunk.
struct Cursor {
  const uint8_t* ahead;  // next address prefetched
  const uint8_t* x;      // first row of quantized x, at the next group
};

// Sums of R rows over H halves of a panel, 16 columns each.
template <int R, int H = 2>
struct Sums {
  F32x16 v[R][H];
};

#if NDS_NEON
// The rows of x at the current k. There are registers for the offset of every row.
template <int R>
struct RowPointers {
  const uint8_t* base;
  int64_t ldx;

  RowPointers(const uint8_t* first, int64_t bytes) : base(first), ldx(bytes) {}
  const uint8_t* row(int r) const { return base + r * ldx; }
  void advance(int64_t bytes) { base += bytes; }
};
#else
// The rows of x at the current k. One pointer serves three rows, so that twelve rows take four registers.
template <int R>
struct RowPointers {
  const uint8_t* base[(R + 2) / 3];
  int64_t ldx;

  RowPointers(const uint8_t* first, int64_t bytes) : ldx(bytes) {
    for (int i = 0; i < (R + 2) / 3; i++) base[i] = first + i * 3 * ldx;
  }
  const uint8_t* row(int r) const { return base[r / 3] + r % 3 * ldx; }
  void advance(int64_t bytes) {
    for (int i = 0; i < (R + 2) / 3; i++) {
      base[i] += bytes;
#if defined(__GNUC__)
      asm("" : "+r"(base[i]));  // keeps the compiler from giving every row a register of its own
#endif
    }
  }
};
#endif

inline int32_t read_i32(const uint8_t* p) {
  int32_t value;
  std::memcpy(&value, p, 4);
  return value;
}
inline uint16_t read_u16(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, 2);
  return value;
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
