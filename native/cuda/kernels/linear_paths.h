// The kernels that linear() chooses from, and the order of sums as their argument.
#pragma once
#include "cuda/kernels.h"

namespace nds::cuda {

// Any types and any chunk edges.
void linear_plain(const LinearArgs& args, LaunchPlace place);

// On tensor cores: few and tiled yield the same bits. Few rows are bound by reading the weights.
constexpr int kFewRows = 32;
bool linear_few_serves(const LinearArgs& args);
void linear_few(const LinearArgs& args, LaunchPlace place);
// `shape`, or the next smaller one whose stack of sums fits the shared memory of a block.
enum class TileShape { automatic, small, narrow, wide };
void linear_tiled(const LinearArgs& args, LaunchPlace place, TileShape shape = TileShape::automatic);

// Chunk edges in runs of 32 columns, and merges: a kernel's argument, since reading them from memory would delay the
// first weights by a round trip.
template <int kMaxChunks>
struct ChunkOrder {
  int num_chunks = 0;
  bool is_balanced;  // whether the sum is that of a binary tree over 2^i chunks
  uint16_t edges[kMaxChunks + 1];
  uint8_t merges[kMaxChunks];

  explicit ChunkOrder(const LinearWeight& w) : num_chunks(w.num_chunks), is_balanced(w.num_roots == 1) {
    for (int c = 0; c <= num_chunks; c++) edges[c] = static_cast<uint16_t>(w.host_edges[c] / 32);
    for (int c = 0; c < num_chunks; c++) {
      merges[c] = w.host_merges[c];
      int trailing_ones = 0;
      while (c >> trailing_ones & 1) trailing_ones++;
      is_balanced = is_balanced && merges[c] == trailing_ones;
    }
  }
};

}  // namespace nds::cuda
