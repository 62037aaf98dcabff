// The micro-kernels of linear on AMX: up to 32 rows of x times one panel of W, chunk by chunk.
#pragma once
#include <cstdint>
#include <cstring>

#include "cpu/kernels/amx.h"
#include "cpu/kernels/linear_rows.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

constexpr int kAmxBlock = 2 * kAmxRows;            // max rows of a tile of linear
constexpr int kAmxStep = 32;                       // k of a step of bf16
constexpr int kAmxStepBytes = kAmxStep / 2 * 128;  // of weights
using AmxSums = float[kAmxBlock][kPanel];

inline void prefetch_run(const uint8_t*& ahead, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) prefetch(ahead + i);
  ahead += bytes;
}

// Adds one step to the sums of B blocks of 16 rows. The products with a tile of columns follow each other, as a tile
// that stays costs less.
template <int B>
inline void amx_step_bf16(const uint8_t* w, const uint8_t* x, int64_t ldx) {
  amx_load<kAmxA>(x, ldx);
  if constexpr (B == 2) amx_load<kAmxA + 1>(x + kAmxRows * ldx, ldx);
  amx_load<kAmxB>(w, 128);
  amx_multiply_bf16<0, kAmxA, kAmxB>();
  if constexpr (B == 2) amx_multiply_bf16<2, kAmxA + 1, kAmxB>();
  amx_load<kAmxB + 1>(w + 64, 128);
  amx_multiply_bf16<1, kAmxA, kAmxB + 1>();
  if constexpr (B == 2) amx_multiply_bf16<3, kAmxA + 1, kAmxB + 1>();
}

template <int B>
inline void amx_zero_sums() {
  amx_zero<0>();
  amx_zero<1>();
  if constexpr (B == 2) {
    amx_zero<2>();
    amx_zero<3>();
  }
}

// Sums [rows][kPanel], rows ld floats apart.
template <int B>
inline void amx_store_sums(void* sums, int64_t row_bytes) {
  uint8_t* const out = static_cast<uint8_t*>(sums);
  amx_store<0>(out, row_bytes);
  amx_store<1>(out + 64, row_bytes);
  if constexpr (B == 2) {
    amx_store<2>(out + kAmxRows * row_bytes, row_bytes);
    amx_store<3>(out + kAmxRows * row_bytes + 64, row_bytes);
  }
}

// The last k_left (1 … 31) columns of a chunk, padded with zeros: what follows in x and w belongs to others, and may be
// infinite.
template <int B>
void amx_ragged_step(const TileArgs& args, const uint8_t* w, const uint8_t* x, int k_left) {
  alignas(64) uint8_t padded_x[kAmxBlock * kAmxStep * 2], padded_w[kAmxStepBytes];
  const auto x_bytes = static_cast<size_t>(k_left) * 2, w_bytes = static_cast<size_t>((k_left + 1) / 2) * 128;
  std::memset(padded_x, 0, sizeof(padded_x));
  for (int r = 0; r < args.rows; r++) std::memcpy(padded_x + r * kAmxStep * 2, x + r * args.ldx, x_bytes);
  std::memcpy(padded_w, w, w_bytes);
  std::memset(padded_w + w_bytes, 0, sizeof(padded_w) - w_bytes);
  amx_step_bf16<B>(padded_w, padded_x, kAmxStep * 2);
}

struct AmxBf16Chunks {
  template <int B>
  static void sum(const TileArgs& args, const Chunk& chunk, Cursor& cursor, AmxSums& sums) {
    amx_zero_sums<B>();
    const uint8_t *w = args.panel + chunk.offset, *x = args.x + int64_t{chunk.k_begin} * 2;
    int k_left = chunk.k_len;
    for (; k_left >= kAmxStep; k_left -= kAmxStep) {
      prefetch_run(cursor.ahead, args.prefetch_step);
      amx_step_bf16<B>(w, x, args.ldx);
      w += kAmxStepBytes;
      x += kAmxStep * 2;
    }
    if (k_left > 0) amx_ragged_step<B>(args, w, x, k_left);
    amx_store_sums<B>(sums, kPanel * 4);
  }
};

// lower += upper.
inline void amx_join(AmxSums& lower, const AmxSums& upper, int rows) {
  for (int r = 0; r < rows; r++) {
    for (int column = 0; column < kPanel; column += 16)
      store(&lower[r][column], load(&lower[r][column]) + load(&upper[r][column]));
  }
}

inline void amx_store_root(const TileArgs& args, int root, const AmxSums& sums) {
  float* y = args.y + root * args.root_stride;
  for (int r = 0; r < args.rows; r++) {
    for (int column = 0; column < kPanel; column += 16) {
      const F32x16 sum = load(&sums[r][column]);
      store(y + r * args.ldy + column, args.bias == nullptr ? sum : sum + load(args.bias + column));
    }
  }
}

// All chunks of args.rows rows in B tiles, joined on a stack by w->merges.
template <typename Chunks, int B>
void linear_amx_tile(const TileArgs& args) {
  args.amx->set(args.rows);
  alignas(64) AmxSums stack[kMaxDepth];
  int depth = 0;
  Cursor cursor{args.prefetch, args.x};
  for (int c = 0; c < args.w->num_chunks; c++) {
    Chunks::template sum<B>(args, args.w->chunks[c], cursor, stack[depth++]);
    for (int merges = args.w->merges[c]; merges > 0; merges--) {
      depth--;
      amx_join(stack[depth - 1], stack[depth], args.rows);
    }
  }
  for (int root = 0; root < depth; root++) amx_store_root(args, root, stack[root]);
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
