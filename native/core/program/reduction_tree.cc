// The fixed binary tree that joins the partial sums of k-chunks, whatever the number of ranks.
#include "core/program/reduction_tree.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/round_up.h"

namespace nds {
namespace {

struct Range {
  int begin, end;
  int size() const { return end - begin; }
  bool contains(Range other) const { return begin <= other.begin && other.end <= end; }
  bool meets(Range other) const { return begin < other.end && other.begin < end; }
};

Range node_range(int num_chunks, int level, int64_t index) {
  return {static_cast<int>(index * num_chunks >> level), static_cast<int>((index + 1) * num_chunks >> level)};
}

Range rank_range(int num_chunks, int world_size, int rank) {
  const auto edge = [&](int r) { return static_cast<int>(static_cast<int64_t>(r) * num_chunks / world_size); };
  return {edge(rank), edge(rank + 1)};
}

// Visits the nodes that overlap `range`, in chunk order. is_leaf(node): push it and stop; adds(node): add its children.
template <typename IsLeaf, typename Adds>
void walk(int num_chunks, Range range, int level, int64_t index, const IsLeaf& is_leaf, const Adds& adds,
          std::vector<uint8_t>& merges) {
  const Range node = node_range(num_chunks, level, index);
  if (!node.meets(range)) return;
  if (is_leaf(node)) {
    merges.push_back(0);
    return;
  }
  walk(num_chunks, range, level + 1, index * 2, is_leaf, adds, merges);
  walk(num_chunks, range, level + 1, index * 2 + 1, is_leaf, adds, merges);
  const int middle = node_range(num_chunks, level + 1, index * 2).end;
  if (node.begin < middle && middle < node.end && adds(node)) merges.back()++;
}

int remaining(const std::vector<uint8_t>& merges) {
  int depth = 0;
  for (const uint8_t count : merges) depth += 1 - count;
  return depth;
}

// Bytes of a chunk in a panel; counts its groups and tiles.
int64_t add_chunk(PackedLinear& linear, int k_len) {
  if (linear.format == WeightFormat::fp8) return round_up(k_len, kFp8Quad) * kPanel * 2;
  if (!is_quantized(linear.format)) {
    const int64_t padded = linear.format == WeightFormat::bf16 ? k_len + k_len % 2 : k_len;
    return padded * kPanel * static_cast<int64_t>(dtype_size(row_dtype(linear.format)));
  }
  const int num_groups = (k_len + linear.group - 1) / linear.group, num_tiles = (k_len + kTile - 1) / kTile;
  linear.num_groups += num_groups;
  linear.num_tiles += num_tiles;
  const int64_t tile_bytes = is_int8(linear.format) ? 1024 : linear.has_multipliers ? 512 + kPanel : 512;
  return num_tiles * tile_bytes + int64_t{num_groups} * linear.tail_bytes;
}

}  // namespace

std::vector<uint8_t> local_merges(int num_chunks, int begin, int end) {
  const Range range{begin, end};
  std::vector<uint8_t> merges;
  const auto is_chunk = [](Range node) { return node.size() == 1; };
  const auto is_inside = [&](Range node) { return range.contains(node); };
  walk(num_chunks, range, 0, 0, is_chunk, is_inside, merges);
  return merges;
}

int rank_num_roots(int num_chunks, int world_size, int rank) {
  const Range range = rank_range(num_chunks, world_size, rank);
  return remaining(local_merges(num_chunks, range.begin, range.end));
}

std::vector<uint8_t> join_merges(int num_chunks, int world_size) {
  std::vector<Range> ranks;
  for (int r = 0; r < world_size; r++) ranks.push_back(rank_range(num_chunks, world_size, r));
  std::vector<uint8_t> merges;
  const auto is_root = [&](Range node) {
    return std::any_of(ranks.begin(), ranks.end(), [&](Range rank) { return rank.contains(node); });
  };
  walk(num_chunks, {0, num_chunks}, 0, 0, is_root, [](Range) { return true; }, merges);
  return merges;
}

int num_scale_runs(Fp8Columns columns, int begin, int count) {
  const int first = columns.first + begin;
  return count == 0 ? 0 : (first + count - 1) / columns.per_scale - first / columns.per_scale + 1;
}

PackedLinear plan_packed_linear(WeightFormat format, int num_panels, const std::vector<int>& chunk_edges,
                                int first_chunk, int num_chunks, const KeptCodes* codes, Fp8Columns fp8) {
  const int num_local = static_cast<int>(chunk_edges.size()) - 1;
  if (num_local < 1 || num_local > kMaxChunks) {
    throw Error("ERR_INTERNAL", "Expected 1 to " + std::to_string(kMaxChunks) + " chunks for a matrix but received " +
                                    std::to_string(num_local));
  }
  const std::vector<uint8_t> merges = local_merges(num_chunks, first_chunk, first_chunk + num_local);
  PackedLinear linear;
  linear.format = format;
  linear.num_panels = num_panels;
  linear.k = chunk_edges.back();
  linear.group = codes == nullptr ? kMaxGroup : codes->group;
  linear.has_wide_scales = codes != nullptr && codes->has_wide_scales;
  linear.has_multipliers = format == WeightFormat::int4 && codes == nullptr;
  const int zero_bytes = format == WeightFormat::int8_zero ? 2 : format == WeightFormat::int4_zero ? 1 : 0;
  linear.tail_bytes = kPanel * ((linear.has_wide_scales ? 4 : 2) + zero_bytes);
  linear.num_chunks = num_local;
  linear.num_roots = remaining(merges);
  int depth = 0;
  for (int c = 0; c < num_local; c++) {
    const int k_len = chunk_edges[c + 1] - chunk_edges[c];
    linear.chunks[c] = {chunk_edges[c], k_len, linear.panel_bytes};
    linear.merges[c] = merges[c];
    linear.panel_bytes += add_chunk(linear, k_len);
    if (++depth > kMaxDepth) {
      throw Error("ERR_INTERNAL", "Expected at most " + std::to_string(kMaxDepth) + " partial sums at once");
    }
    depth -= merges[c];
  }
  if (format == WeightFormat::fp8) {
    linear.scale_cols = fp8.per_scale;
    linear.first_col = fp8.first;
    linear.decoded_bytes = linear.panel_bytes;
    linear.panel_bytes = linear.decoded_bytes / 2;
    for (int c = 0; c < num_local; c++)
      linear.panel_bytes += num_scale_runs(fp8, linear.chunks[c].k_begin, linear.chunks[c].k_len) * kPanel * 4;
  }
  if (is_quantized(format) && !is_int8(format) && linear.group > kTile)
    linear.decoded_bytes = int64_t{linear.num_tiles} * 1024 + int64_t{linear.num_groups} * kPanel * 2;
  linear.panel_bytes = round_up(linear.panel_bytes, 64);
  return linear;
}

}  // namespace nds
