// A matrix W [n, k] packed for y = x W^T, and the order in which its k columns are summed.
#pragma once
#include <cstdint>

#include "core/dtype.h"

namespace nds {

constexpr int kPanel = 32;       // output columns per panel
constexpr int kMaxChunks = 256;  // per matrix and rank
constexpr int kMaxDepth = 16;    // of the stack on which partial sums join
// Version of the layout below, and of how values are rounded to it: packed matrices are kept between loads. Increment
// it with every change of either.
constexpr int kPackedLayout = 3;
constexpr int kTile = 32;       // columns of a tile of a quantized matrix
constexpr int kMaxGroup = 128;  // columns that share a scale, at most; as many where they are quantized at load
constexpr int kFp8Quad = 4;     // columns that are decoded together

// One contiguous run of k, summed by one accumulator chain from its first column to its last.
struct Chunk {
  int k_begin;     // in this rank's columns, hence in the activations
  int k_len;       // may be 0: an empty chunk sums to +0
  int64_t offset;  // bytes from the start of a panel; for fp8, of one that is decoded
};

// Panel layout. bf16: per chunk [ceil(k_len / 2)][32 columns][2]; fp16 and fp32: per chunk [k_len][32 columns].
// One k-step is 128 contiguous bytes for bf16 and fp32, 64 for fp16. Padding (odd k_len, missing columns) is zero.
//
// int8, int4 and those with zero points: each chunk is cut into groups of k from its first column on, the last one
// ragged and padded with zeros to whole tiles. A group is its tiles, then the scales of the 32 columns as fp16(256 *
// scale), 64 bytes, or with has_wide_scales as fp32, 128 bytes. A weight is q * scale. A tile holds 32 k as quads of 4:
// - int8, 1024 bytes: [8 quads][32 columns][4 k] of q + 128, q from -128 to 127;
// - int4, 512 bytes: [4 pairs of quads][32 columns][4 k] of q + 8, q from -8 to 7, quad 2p in the low nibble and quad
//   2p + 1 in the high one;
// - int4_zero, 512 bytes: as int4, but of c from 0 to 15, and after the scales the zero points z of the 32 columns,
//   from 0 to 16, 32 bytes: q = c - z;
// - int8_zero, 1024 bytes: as int8, but of c from 0 to 255, and after the scales z from 0 to 256 in 16 bits, 64 bytes.
//
// int4 made at load has multipliers: last in a group each of its tiles has 32 signed bytes, one for each column, from 1
// to 15 in magnitude. A weight is q * multiplier * scale, where q * multiplier is an integer from -120 to 120.
//
// Integers that a checkpoint stores stay as they are. Where its groups do not end at those of a chunk, or where columns
// are sorted by group, `columns` says which column is at each position, and k_begin and k_len count positions.
//
// fp8: a panel is decoded to the layout of bf16, but for chunks that are padded to quads of 4 k; its codes take half of
// that, and a chunk's begin at half its offset: [quads][32 columns][4 codes], of k 0, 2, 1, 3, each 1 sign, 4 exponent
// and 3 mantissa bits. After all codes, for each run of columns that share scales, in the order of chunks, 2^120 times
// the scales of the 32 columns in fp32, 128 bytes. A run ends at a scale's edge, a multiple of scale_cols in the whole
// matrix, or at a chunk's, and begins at a quad. A weight is bf16(code * scale), the product rounded to fp32 first: the
// value that SliceReader has. Where a run of a column has a NaN, its scale is one.
//
// Partial sums of chunks join on a stack: after chunk c is pushed, the top two are added (lower + upper) merges[c]
// times. The stack is left with this rank's num_roots partial sums, bottom to top.
// Plain arrays, so that files compiled for one instruction set can read it without instantiating a template.
struct PackedLinear {
  WeightFormat format = WeightFormat::f32;
  int num_panels = 0;
  int k = 0;  // columns on this rank
  int num_chunks = 0;
  int num_roots = 1;
  int group = 0;  // positions that share a scale, if quantized: a multiple of a tile
  bool has_wide_scales = false, has_multipliers = false;
  int tail_bytes = 0;                 // of the scales and zero points after the tiles of a group
  int num_groups = 0, num_tiles = 0;  // of all chunks, if quantized
  int scale_cols = 1, first_col = 0;  // fp8: columns of a scale; this rank's first column in the whole matrix
  int64_t decoded_bytes = 0;          // of a panel: fp8 in bf16, 4 bits in groups of several tiles in int8
  int64_t panel_bytes = 0;            // a multiple of 64
  uint8_t* data = nullptr;            // [num_panels][panel_bytes], 64-byte aligned
  const int32_t* columns = nullptr;   // [positions] column of the activations, -1 = none; null = as they are
  Chunk chunks[kMaxChunks];
  uint8_t merges[kMaxChunks];
};

}  // namespace nds
