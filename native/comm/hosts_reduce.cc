// All-reduce between ranks of several hosts: leaders exchange their hosts' partial sums, and add all of them.
#include <algorithm>
#include <cstring>

#include "comm/hosts.h"
#include "comm/shm_stream.h"
#include "core/round_up.h"

namespace nds::comm {
namespace {

// Max bytes of a host's partial sums that its leader holds at once.
constexpr int64_t kPieceBytes = 4 << 20;
// Max bytes of a host's partial sums for which leaders exchange all of them and each adds everything: one exchange.
// Above, each adds a slice and shares it: two exchanges of fewer bytes.
constexpr int64_t kHostOneShotBytes = 64 << 10;

}  // namespace

void HostsCommunicator::all_reduce(const float* const* local, const int* num_roots, int64_t count, const JoinFn& join,
                                   float* out) {
  Reduction args{local, num_roots, &join, out, std::vector<int>(static_cast<size_t>(num_nodes_), 0), 0};
  for (int r = 0; r < world_size(); r++) args.node_roots[r / local_size()] += num_roots[r];
  for (const int roots : args.node_roots) args.total_roots += roots;
  const int max_roots = std::max(1, *std::max_element(args.node_roots.begin(), args.node_roots.end()));
  const int64_t piece = std::max(kPieceBytes / 4 / max_roots / kLineFloats, int64_t{1}) * kLineFloats;
  collective(CollectiveKind::all_reduce, count * 4, layout_hash(num_roots, int64_t{4} * world_size()), [&] {
    int64_t begin = 0;
    do {
      reduce_piece(args, begin, std::min(piece, count - begin));
      begin += piece;
    } while (begin < count);
  });
}

// Elements [begin, begin + count).
void HostsCommunicator::reduce_piece(const Reduction& args, int64_t begin, int64_t count) {
  gather_roots(args, begin, count);
  if (is_leader()) {
    const int max_roots = *std::max_element(args.node_roots.begin(), args.node_roots.end());
    if (count * 4 * max_roots <= kHostOneShotBytes) {
      reduce_at_once(args, begin, count);
    } else {
      reduce_by_slices(args, begin, count);
    }
  }
  uint8_t* const range = reinterpret_cast<uint8_t*>(args.out + begin);
  const int64_t bytes = count * 4;
  share(&range, &bytes, 1);
}

void HostsCommunicator::gather_roots(const Reduction& args, int64_t begin, int64_t count) {
  const int me = lockstep_.rank(), first = first_rank(node_);
  const int my_roots = args.num_roots[rank()];
  std::vector<int64_t> sizes, offsets;  // of each rank's partial sums, in floats; the leader's stay where they are
  int64_t total = 0;
  for (int r = 0; r < local_size(); r++) {
    sizes.push_back(r == 0 ? 0 : args.num_roots[first + r] * count * 4);
    offsets.push_back(total);
    total += sizes.back() / 4;
  }
  if (is_leader()) {
    if (static_cast<int64_t>(host_sums_.size()) < total) host_sums_.resize(static_cast<size_t>(total));
    host_roots_.clear();
    for (int r = 0; r < local_size(); r++) {
      for (int root = 0; root < args.num_roots[first + r]; root++)
        host_roots_.push_back(r == 0 ? args.local[root] + begin : host_sums_.data() + offsets[r] + root * count);
    }
  }
  if (local_size() == 1) return;
  stream(
      lockstep_, sizes.data(),
      [&](int64_t from, int64_t to, uint8_t* outbox) {
        // [root][count]
        for (int root = 0; root < my_roots; root++) {
          const int64_t a = std::max(from, root * count * 4), b = std::min(to, (root + 1) * count * 4);
          if (a >= b) continue;
          const uint8_t* sums = reinterpret_cast<const uint8_t*>(args.local[root] + begin);
          std::memcpy(outbox + (a - from), sums + (a - root * count * 4), static_cast<size_t>(b - a));
        }
      },
      [&](int r, int64_t from, int64_t to, const uint8_t* inbox) {
        if (me != 0) return;
        uint8_t* sums = reinterpret_cast<uint8_t*>(host_sums_.data() + offsets[r]);
        std::memcpy(sums + from, inbox, static_cast<size_t>(to - from));
      });
}

// Leaders send each other the range of their hosts' partial sums that each is to add: node n adds range_of(n) of all
// partial sums, from element `begin` on, to out.
template <typename RangeOf>
void HostsCommunicator::exchange_and_join(const Reduction& args, int64_t begin, RangeOf range_of) {
  const Range mine = range_of(node_);
  const size_t others = static_cast<size_t>((args.total_roots - args.node_roots[node_]) * mine.count);
  if (other_sums_.size() < others) other_sums_.resize(others);
  HostExchange between = new_exchange();
  float* next = other_sums_.data();
  inputs_.clear();
  for (int n = 0; n < num_nodes_; n++) {
    for (int root = 0; root < args.node_roots[n]; root++) {
      if (n == node_) {
        inputs_.push_back(host_roots_[root] + mine.begin);
        continue;
      }
      inputs_.push_back(next);
      between.receives[n].push_back({next, mine.count * 4});
      next += mine.count;
    }
    if (n == node_) continue;
    const Range theirs = range_of(n);
    for (const float* root : host_roots_) between.sends[n].push_back({root + theirs.begin, theirs.count * 4});
  }
  exchange(between, CollectiveKind::all_reduce);
  if (mine.count > 0) (*args.join)(inputs_.data(), 0, mine.count, args.out + begin + mine.begin);
}

// Each leader sends all partial sums of its host to the others, and adds everything.
void HostsCommunicator::reduce_at_once(const Reduction& args, int64_t begin, int64_t count) {
  exchange_and_join(args, begin, [&](int) { return Range{0, count}; });
}

// Reduce-scatter, then all-gather: node n adds slice n of all partial sums, then sends it to the others.
void HostsCommunicator::reduce_by_slices(const Reduction& args, int64_t begin, int64_t count) {
  const int64_t slice = round_up((count + num_nodes_ - 1) / num_nodes_, kLineFloats);
  const auto slice_begin = [&](int node) { return std::min(count, node * slice); };
  const auto slice_size = [&](int node) { return slice_begin(node + 1) - slice_begin(node); };
  const int64_t mine = slice_size(node_);
  exchange_and_join(args, begin, [&](int n) { return Range{slice_begin(n), slice_size(n)}; });
  float* const out = args.out + begin;
  HostExchange gather = new_exchange();
  for (int n = 0; n < num_nodes_; n++) {
    if (n == node_) continue;
    gather.sends[n].push_back({out + slice_begin(node_), mine * 4});
    gather.receives[n].push_back({out + slice_begin(n), slice_size(n) * 4});
  }
  exchange(gather, CollectiveKind::all_reduce);
}

}  // namespace nds::comm
