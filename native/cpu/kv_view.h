// The paged KV cache of one layer as kernels see it.
#pragma once
#include <cstdint>

#include "core/dtype.h"
#include "core/program/program.h"

namespace nds::cpu {

constexpr int kRun = 32;  // tokens that attention visits together; a block holds whole runs

// Tile of (block, kv head): [block_size / 32] runs, each a K panel and then a V panel over head_dim rounded up to 16
// (hd):
//   bf16: K [hd / 2][32 tokens][2], V [16 token pairs][hd][2];   fp32: K [hd][32 tokens], V [32 tokens][hd];
//   int8: K [hd][32 tokens], V [32 tokens][hd], then fp32 scales [32] of K and [32] of V: an element is its integer
//   times the scale of its token.
// The pool is zeroed once, so padding dimensions stay zero. A run is cleared when a sequence begins it, so that
// elements past its tokens are finite.
struct KvView {
  uint8_t* base = nullptr;   // of this layer: [num_blocks, block_stride apart][num_kv_heads][tile_bytes]
  DType dtype = DType::f32;  // of queries and outputs
  KvDtype kv_dtype = KvDtype::activation;
  int num_blocks = 0;
  int block_size = 0;
  int num_kv_heads = 0;  // on this rank
  int head_dim = 0;
  int padded_head_dim = 0;
  int64_t panel_bytes = 0;  // K or V of 32 tokens: 32 * padded_head_dim * sizeof(element)
  int64_t run_bytes = 0;    // both panels, and the scales of int8
  int64_t tile_bytes = 0;   // run_bytes * block_size / 32
  // Bytes from one block to the next. A block holds all layers of its tokens, so that a new sequence touches few pages.
  int64_t block_stride = 0;
};

// The view of a cache that has no memory yet; block_stride spans num_layers layers. @throws Error ERR_SYSTEM if sizes
// overflow.
KvView plan_kv(const KvSpec& spec, DType activation_dtype);

}  // namespace nds::cpu
