// Collectives between processes of one host, over shared memory.
#include <algorithm>
#include <cstring>
#include <vector>

#include "comm/communicator.h"
#include "comm/shm_communicator.h"
#include "comm/shm_stream.h"
#include "core/error.h"
#include "core/round_up.h"

namespace nds::comm {
namespace {

// Max bytes per rank for a one-shot all-reduce, in which every rank adds everything: one phase. Above, each rank adds a
// slice: two phases, but less to read and add.
constexpr int64_t kOneShotBytes = 4096;

void copy_floats(float* to, const float* from, int64_t count) {
  if (count > 0) std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

}  // namespace

void ShmCommunicator::all_reduce(const float* const* local, const int* num_roots, int64_t count, const JoinFn& join,
                                 float* out) {
  const int64_t max_roots = std::max(1, *std::max_element(num_roots, num_roots + world_size()));
  const int64_t limit = kSlotBytes / static_cast<int64_t>(sizeof(float)) / max_roots / kLineFloats * kLineFloats;
  if (limit == 0)
    throw Error("ERR_INTERNAL", "Expected at most " + std::to_string(kSlotBytes / 64) +
                                    " partial sums of a rank but received " + std::to_string(max_roots));
  lockstep_.begin(CollectiveKind::all_reduce, count * 4, layout_hash(num_roots, int64_t{4} * world_size()));
  const ReduceArgs args{local, num_roots, &join, out};
  if (count * 4 * max_roots <= kOneShotBytes) {
    reduce_at_once(args, count);
  } else {
    const int64_t num_pieces = (count + limit - 1) / limit;
    const int64_t piece = round_up((count + num_pieces - 1) / num_pieces, kLineFloats);
    for (int64_t begin = 0; begin < count; begin += piece) reduce_piece(args, begin, std::min(count, begin + piece));
  }
  lockstep_.end();
}

// Outbox: [root][count rounded up to a cache line].
void ShmCommunicator::reduce_at_once(const ReduceArgs& args, int64_t count) {
  const int64_t stride = round_up(count, kLineFloats);
  float* outbox = reinterpret_cast<float*>(lockstep_.outbox());
  const int my_roots = args.num_roots[rank()];
  for (int root = 0; root < my_roots; root++) copy_floats(outbox + root * stride, args.local[root], count);
  lockstep_.publish(my_roots * count * 4);
  collect_inputs(args, 0, stride);
  (*args.join)(inputs_.data(), 0, count, args.out);
}

// Elements [begin, end) by reduce-scatter and all-gather: rank s adds slice s of all ranks' partial sums, then shares
// it.
void ShmCommunicator::reduce_piece(const ReduceArgs& args, int64_t begin, int64_t end) {
  const int64_t count = end - begin;
  const int64_t stride = round_up(count, kLineFloats);
  const int64_t slice = round_up((count + world_size() - 1) / world_size(), kLineFloats);
  const auto slice_begin = [&](int r) { return std::min(count, r * slice); };
  const int64_t mine_begin = slice_begin(rank()), mine_end = slice_begin(rank() + 1);

  // Outbox: [root][stride], without my own slice.
  float* outbox = reinterpret_cast<float*>(lockstep_.outbox());
  const int my_roots = args.num_roots[rank()];
  for (int root = 0; root < my_roots; root++) {
    copy_floats(outbox + root * stride, args.local[root] + begin, mine_begin);
    copy_floats(outbox + root * stride + mine_end, args.local[root] + begin + mine_end, count - mine_end);
  }
  lockstep_.publish(my_roots * (count - (mine_end - mine_begin)) * 4);
  collect_inputs(args, begin, stride);

  // Outbox: [stride], only my slice is set.
  float* out = args.out + begin;
  outbox = reinterpret_cast<float*>(lockstep_.outbox());
  if (mine_begin < mine_end) (*args.join)(inputs_.data(), mine_begin, mine_end, outbox);
  lockstep_.publish((mine_end - mine_begin) * 4);
  copy_floats(out + mine_begin, outbox + mine_begin, mine_end - mine_begin);
  for (int r = 0; r < world_size(); r++) {
    if (r == rank()) continue;
    const float* inbox = reinterpret_cast<const float*>(lockstep_.inbox(r));
    copy_floats(out + slice_begin(r), inbox + slice_begin(r), slice_begin(r + 1) - slice_begin(r));
  }
}

// Inputs of the join in rank order: other ranks' arrays in their slots, mine in place from element `begin` on.
void ShmCommunicator::collect_inputs(const ReduceArgs& args, int64_t begin, int64_t stride) {
  inputs_.clear();
  for (int r = 0; r < world_size(); r++) {
    const float* inbox = r == rank() ? nullptr : reinterpret_cast<const float*>(lockstep_.inbox(r));
    for (int root = 0; root < args.num_roots[r]; root++)
      inputs_.push_back(r == rank() ? args.local[root] + begin : inbox + root * stride);
  }
}

void ShmCommunicator::exchange_rows(uint8_t* rows, int64_t num_rows, int64_t row_bytes, int64_t stride,
                                    const int32_t* owner) {
  lockstep_.begin(CollectiveKind::exchange_rows, num_rows * row_bytes, layout_hash(owner, num_rows * 4));
  // Counting sort of rows by owner: the stream of rank r is row_order_[first_row[r] … first_row[r + 1]).
  std::vector<int64_t> first_row(world_size() + 1, 0), sizes(world_size());
  for (int64_t i = 0; i < num_rows; i++) first_row[owner[i] + 1]++;
  for (int r = 0; r < world_size(); r++) {
    sizes[r] = first_row[r + 1] * row_bytes;
    first_row[r + 1] += first_row[r];
  }
  row_order_.resize(num_rows);
  std::vector<int64_t> next(first_row.begin(), first_row.end() - 1);
  for (int64_t i = 0; i < num_rows; i++) row_order_[next[owner[i]]++] = i;

  // Calls body(address of a part of a row, its length) along bytes [begin, end) of rank r's stream.
  const auto for_parts = [&](int r, int64_t begin, int64_t end, auto body) {
    while (begin < end) {
      const int64_t within = begin % row_bytes;
      const int64_t length = std::min(end - begin, row_bytes - within);
      body(rows + row_order_[first_row[r] + begin / row_bytes] * stride + within, static_cast<size_t>(length));
      begin += length;
    }
  };
  stream(
      lockstep_, sizes.data(),
      [&](int64_t begin, int64_t end, uint8_t* outbox) {
        for_parts(rank(), begin, end, [&](const uint8_t* part, size_t length) {
          std::memcpy(outbox, part, length);
          outbox += length;
        });
      },
      [&](int r, int64_t begin, int64_t end, const uint8_t* inbox) {
        for_parts(r, begin, end, [&](uint8_t* part, size_t length) {
          std::memcpy(part, inbox, length);
          inbox += length;
        });
      });
  lockstep_.end();
}

void ShmCommunicator::all_gather(const void* local, const int64_t* counts, void* out) {
  int64_t total = 0;
  std::vector<int64_t> offsets;
  for (int r = 0; r < world_size(); r++) {
    offsets.push_back(total);
    total += counts[r];
  }
  lockstep_.begin(CollectiveKind::all_gather, total, layout_hash(counts, int64_t{8} * world_size()));
  const uint8_t* from = static_cast<const uint8_t*>(local);
  uint8_t* to = static_cast<uint8_t*>(out);
  stream(
      lockstep_, counts,
      [&](int64_t begin, int64_t end, uint8_t* outbox) {
        std::memcpy(outbox, from + begin, static_cast<size_t>(end - begin));
      },
      [&](int r, int64_t begin, int64_t end, const uint8_t* inbox) {
        std::memcpy(to + offsets[r] + begin, inbox, static_cast<size_t>(end - begin));
      });
  if (counts[rank()] > 0 && to + offsets[rank()] != from)
    std::memcpy(to + offsets[rank()], from, static_cast<size_t>(counts[rank()]));
  lockstep_.end();
}

void check_timeouts(const CommOptions& options) {
  if (options.step_timeout_ms <= 0 || options.startup_timeout_ms <= 0) {
    throw Error("ERR_INTERNAL", "Expected timeouts above 0 ms but received " + std::to_string(options.step_timeout_ms) +
                                    " and " + std::to_string(options.startup_timeout_ms));
  }
}

std::unique_ptr<Communicator> make_shm(const CommOptions& options) {
  return make_shm_over(std::make_shared<ShmRegion>(options.shm_fd, options.world_size), options);
}

std::unique_ptr<Communicator> make_shm_over(std::shared_ptr<ShmRegion> region, const CommOptions& options) {
  if (options.rank < 0 || options.rank >= options.world_size || options.world_size != region->world_size()) {
    throw Error("ERR_INTERNAL", "Expected a rank below the " + std::to_string(region->world_size()) +
                                    " of the shared memory but received rank " + std::to_string(options.rank) + " of " +
                                    std::to_string(options.world_size));
  }
  check_timeouts(options);
  return std::make_unique<ShmCommunicator>(std::move(region), options);
}

}  // namespace nds::comm
