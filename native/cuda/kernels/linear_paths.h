// The kernels that linear() chooses from, and how they are given the order of sums.
#pragma once
#include "cuda/kernels.h"

namespace nds::cuda {

// Any types and any chunk edges.
void linear_plain(const LinearArgs& args, cudaStream_t stream);

// On tensor cores; the same bits. Few rows are bound by reading the weights.
constexpr int kFewRows = 32;
bool linear_few_serves(const LinearArgs& args);
void linear_few(const LinearArgs& args, cudaStream_t stream);
void linear_tiled(const LinearArgs& args, cudaStream_t stream);

// Chunk edges in runs of 32 columns, and merges: a kernel's argument, since reading them from memory would delay the
// first weights by a round trip.
template <int kMaxChunks>
struct ChunkOrder {
  int num_chunks = 0;
  uint16_t edges[kMaxChunks + 1];
  uint8_t merges[kMaxChunks];

  explicit ChunkOrder(const LinearWeight& w) : num_chunks(w.num_chunks) {
    for (int c = 0; c <= num_chunks; c++) edges[c] = static_cast<uint16_t>(w.host_edges[c] / 32);
    for (int c = 0; c < num_chunks; c++) merges[c] = w.host_merges[c];
  }
};

}  // namespace nds::cuda
