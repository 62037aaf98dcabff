// A matrix W [n, k] packed for y = x W^T, and the order in which its k columns are summed.
#pragma once
#include <cstdint>

#include "core/dtype.h"

namespace nds {

constexpr int kPanel = 32;       // output columns per panel
constexpr int kMaxChunks = 256;  // per matrix and rank
constexpr int kMaxDepth = 16;    // of the stack on which partial sums join

// One contiguous run of k, summed by one accumulator chain from its first column to its last.
struct Chunk {
  int k_begin;     // in this rank's columns, hence in the activations
  int k_len;       // may be 0: an empty chunk sums to +0
  int64_t offset;  // bytes from the start of a panel
};

// Panel layout. bf16: per chunk [ceil(k_len / 2)][32 columns][2]; fp16 and fp32: per chunk [k_len][32 columns].
// One k-step is 128 contiguous bytes for bf16 and fp32, 64 for fp16. Padding (odd k_len, missing columns) is zero.
// Partial sums of chunks join on a stack: after chunk c is pushed, the top two are added (lower + upper) merges[c]
// times. The stack is left with this rank's num_roots partial sums, bottom to top.
// Plain arrays, so that files compiled for one instruction set can read it without instantiating a template.
struct PackedLinear {
  DType dtype = DType::f32;
  int num_panels = 0;
  int k = 0;  // columns on this rank
  int num_chunks = 0;
  int num_roots = 1;
  int64_t panel_bytes = 0;  // a multiple of 64
  uint8_t* data = nullptr;  // [num_panels][panel_bytes], 64-byte aligned
  Chunk chunks[kMaxChunks];
  uint8_t merges[kMaxChunks];
};

}  // namespace nds
