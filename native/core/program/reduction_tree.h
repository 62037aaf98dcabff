// The fixed binary tree that joins the partial sums of k-chunks, whatever the number of ranks.
//
// Node (l, i) of the tree over C chunks covers chunks [i C / 2^l, (i + 1) C / 2^l); a node adds its two children unless
// one is empty. Rank r of N owns chunks [r C / N, (r + 1) C / N) and adds up the maximal nodes inside them, its roots.
// Local sums and their join are both stack programs with one count per input: push the input, then count times replace
// the top two by lower + upper.
#pragma once
#include <cstdint>
#include <vector>

#include "core/program/packed_linear.h"
#include "core/program/program.h"

namespace nds {

// [end - begin] counts for chunks begin … end - 1. They leave the roots of that range on the stack, lowest first.
std::vector<uint8_t> local_merges(int num_chunks, int begin, int end);

// Number of roots of a rank's chunks.
int rank_num_roots(int num_chunks, int world_size, int rank);

// [sum of all ranks' num_roots] counts for the roots of all ranks in rank order. They leave one sum.
std::vector<uint8_t> join_merges(int num_chunks, int world_size);

// Of a matrix that stays in fp8: columns that share a scale, and this rank's first column in the whole matrix.
struct Fp8Columns {
  int per_scale = 1, first = 0;
};

// Runs of `columns` that share a scale among the columns [begin, begin + count) of this rank.
int num_scale_runs(Fp8Columns columns, int begin, int count);

// Layout and summation order of a matrix. Local chunk c covers columns [chunk_edges[c], chunk_edges[c + 1]) and is
// chunk first_chunk + c of num_chunks. codes: set for integers that are kept; fp8: for that format. data and columns
// stay null.
// @throws Error ERR_INTERNAL for no chunk, more than kMaxChunks, or more than kMaxDepth partial sums at once.
PackedLinear plan_packed_linear(WeightFormat format, int num_panels, const std::vector<int>& chunk_edges,
                                int first_chunk, int num_chunks, const KeptCodes* codes = nullptr, Fp8Columns fp8 = {});

}  // namespace nds
