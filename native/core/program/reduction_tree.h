// The fixed binary tree by which the partial sums of k-chunks join, whatever the number of ranks.
//
// Node (l, i) of the tree over C chunks covers chunks [i C / 2^l, (i + 1) C / 2^l); a node adds its two children unless
// one is empty. Rank r of N owns chunks [r C / N, (r + 1) C / N) and adds up the maximal nodes inside them, its roots.
// Both halves of the work are programs for a stack, one count per input: push it, then that often replace the two
// topmost by lower + upper.
#pragma once
#include <cstdint>
#include <vector>

#include "core/program/packed_linear.h"

namespace nds {

// [end - begin] over chunks begin … end - 1. What remains on the stack are the roots of that range, lowest first.
std::vector<uint8_t> local_merges(int num_chunks, int begin, int end);

// Roots of rank's chunks.
int rank_num_roots(int num_chunks, int world_size, int rank);

// [sum of all ranks' roots] over the roots of all ranks in rank order; one sum remains.
std::vector<uint8_t> join_merges(int num_chunks, int world_size);

// Layout and order of a matrix whose local chunk c covers columns [chunk_edges[c], chunk_edges[c + 1]) and is chunk
// first_chunk + c of num_chunks. data is left null. @throws Error ERR_INTERNAL for more than kMaxChunks chunks.
PackedLinear plan_packed_linear(DType dtype, int num_panels, const std::vector<int>& chunk_edges, int first_chunk,
                                int num_chunks);

}  // namespace nds
