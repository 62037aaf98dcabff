// Collectives between ranks of several hosts: over shared memory on each, and between the hosts' leaders.
#include "comm/hosts.h"

#include <algorithm>
#include <cstring>

#include "comm/shm_stream.h"
#include "core/error.h"

namespace nds::comm {

HostsCommunicator::HostsCommunicator(std::shared_ptr<ShmRegion> region, const CommOptions& options, int node_rank,
                                     int num_nodes, std::unique_ptr<LeaderSession> session)
    : lockstep_(std::move(region), options), node_(node_rank), num_nodes_(num_nodes), session_(std::move(session)) {}

void HostsCommunicator::collective(CollectiveKind kind, int64_t bytes, uint32_t layout,
                                   const std::function<void()>& body) {
  try {
    lockstep_.begin(kind, bytes, layout);
    num_exchanges_ = 0;
    body();
    lockstep_.end();
  } catch (const Error& error) {
    if (is_leader()) session_->fail(error.code, error.what());
    throw;
  }
}

HostExchange HostsCommunicator::new_exchange() {
  HostExchange exchange{lockstep_.current(), num_exchanges_++, lockstep_.step(), {}, {}};
  exchange.sends.resize(static_cast<size_t>(num_nodes_));
  exchange.receives.resize(static_cast<size_t>(num_nodes_));
  return exchange;
}

// The ranks of this host wait for their leader's next phase, so that is where they find its error.
void HostsCommunicator::exchange(const HostExchange& exchange, CollectiveKind kind) {
  try {
    session_->exchange(exchange);
  } catch (const Error& error) {
    lockstep_.publish_failure(error);
    throw;
  }
  for (const std::vector<ConstPart>& parts : exchange.sends) {
    for (const ConstPart& part : parts) {
      sent_.exchanged_bytes += part.bytes;
      if (kind == CollectiveKind::all_reduce) sent_.all_reduce_bytes += part.bytes;
    }
  }
}

void HostsCommunicator::share(uint8_t* const* ranges, const int64_t* sizes, int num_ranges) {
  if (local_size() == 1) return;
  std::vector<int64_t> shared(static_cast<size_t>(local_size()), 0);
  for (int i = 0; i < num_ranges; i++) shared[0] += sizes[i];
  // Calls body(address, length, offset in the slot) for the parts of ranges in bytes [from, to) of all.
  const auto for_parts = [&](int64_t from, int64_t to, auto body) {
    int64_t start = 0;
    for (int i = 0; i < num_ranges; start += sizes[i++]) {
      const int64_t a = std::max(from, start), b = std::min(to, start + sizes[i]);
      if (a < b) body(ranges[i] + (a - start), static_cast<size_t>(b - a), a - from);
    }
  };
  stream(
      lockstep_, shared.data(),
      [&](int64_t from, int64_t to, uint8_t* outbox) {
        for_parts(from, to,
                  [&](const uint8_t* part, size_t length, int64_t at) { std::memcpy(outbox + at, part, length); });
      },
      [&](int, int64_t from, int64_t to, const uint8_t* inbox) {
        for_parts(from, to, [&](uint8_t* part, size_t length, int64_t at) { std::memcpy(part, inbox + at, length); });
      });
}

// out: of all ranks, in rank order. A host's bytes are one range of it.
void HostsCommunicator::gather_bytes(const uint8_t* local, const int64_t* counts, uint8_t* out, CollectiveKind kind) {
  std::vector<int64_t> offsets(1, 0);
  for (int r = 0; r < world_size(); r++) offsets.push_back(offsets.back() + counts[r]);
  const int first = first_rank(node_);
  if (counts[rank()] > 0 && out + offsets[rank()] != local)
    std::memmove(out + offsets[rank()], local, static_cast<size_t>(counts[rank()]));
  if (local_size() > 1) {
    stream(
        lockstep_, counts + first,
        [&](int64_t from, int64_t to, uint8_t* outbox) {
          std::memcpy(outbox, out + offsets[rank()] + from, static_cast<size_t>(to - from));
        },
        [&](int r, int64_t from, int64_t to, const uint8_t* inbox) {
          std::memcpy(out + offsets[first + r] + from, inbox, static_cast<size_t>(to - from));
        });
  }
  const auto node_begin = [&](int node) { return offsets[first_rank(node)]; };
  const auto node_bytes = [&](int node) { return node_begin(node + 1) - node_begin(node); };
  if (is_leader()) {
    HostExchange between = new_exchange();
    for (int n = 0; n < num_nodes_; n++) {
      if (n == node_) continue;
      between.sends[n].push_back({out + node_begin(node_), node_bytes(node_)});
      between.receives[n].push_back({out + node_begin(n), node_bytes(n)});
    }
    exchange(between, kind);
  }
  uint8_t* const ranges[2] = {out, out + node_begin(node_ + 1)};
  const int64_t sizes[2] = {node_begin(node_), offsets.back() - node_begin(node_ + 1)};
  share(ranges, sizes, 2);
}

void HostsCommunicator::all_gather(const void* local, const int64_t* counts, void* out) {
  int64_t total = 0;
  for (int r = 0; r < world_size(); r++) total += counts[r];
  collective(CollectiveKind::all_gather, total, layout_hash(counts, int64_t{8} * world_size()), [&] {
    gather_bytes(static_cast<const uint8_t*>(local), counts, static_cast<uint8_t*>(out), CollectiveKind::all_gather);
  });
}

// Rows are gathered in the order of their owners.
void HostsCommunicator::exchange_rows(uint8_t* rows, int64_t num_rows, int64_t row_bytes, int64_t stride,
                                      const int32_t* owner) {
  const auto body = [&] {
    std::vector<int64_t> counts(static_cast<size_t>(world_size()), 0);
    for (int64_t i = 0; i < num_rows; i++) counts[owner[i]] += row_bytes;
    std::vector<int64_t> next(1, 0);
    for (int r = 0; r < world_size(); r++) next.push_back(next.back() + counts[r]);
    packed_rows_.resize(static_cast<size_t>(num_rows * row_bytes));
    const auto for_rows = [&](auto body) {
      std::vector<int64_t> at = next;
      for (int64_t i = 0; i < num_rows; i++) {
        body(rows + i * stride, packed_rows_.data() + at[owner[i]], owner[i] == rank());
        at[owner[i]] += row_bytes;
      }
    };
    const size_t length = static_cast<size_t>(row_bytes);
    for_rows([&](const uint8_t* row, uint8_t* packed, bool is_mine) {
      if (is_mine) std::memcpy(packed, row, length);
    });
    gather_bytes(packed_rows_.data() + next[rank()], counts.data(), packed_rows_.data(), CollectiveKind::exchange_rows);
    for_rows([&](uint8_t* row, const uint8_t* packed, bool is_mine) {
      if (!is_mine) std::memcpy(row, packed, length);
    });
  };
  collective(CollectiveKind::exchange_rows, num_rows * row_bytes, layout_hash(owner, num_rows * 4), body);
}

void HostsCommunicator::abort() {
  lockstep_.abort();
  if (is_leader()) session_->abort();
}

Communicator::Stats HostsCommunicator::take_stats() {
  Stats stats = lockstep_.take_stats();
  stats.exchanged_bytes += sent_.exchanged_bytes;
  stats.all_reduce_bytes += sent_.all_reduce_bytes;
  if (is_leader()) stats.wait_seconds += session_->take_wait_seconds();
  sent_ = {};
  return stats;
}

}  // namespace nds::comm
