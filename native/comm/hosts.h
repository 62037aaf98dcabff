// Collectives between ranks of several hosts: over shared memory on each, and between the hosts' leaders.
//
// Node n holds ranks n L … n L + L - 1; the first of them is its leader. In a collective, ranks of a host first show
// their leader what they have, the leaders exchange that, and each shares what it received with the ranks of its host.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "comm/leaders.h"
#include "comm/shm_lockstep.h"

namespace nds::comm {

class HostsCommunicator final : public Communicator {
 public:
  // options: of the rank among its host's. session: of a leader, else null.
  HostsCommunicator(std::shared_ptr<ShmRegion> region, const CommOptions& options, int node_rank, int num_nodes,
                    std::unique_ptr<LeaderSession> session);

  int rank() const override { return first_rank(node_) + lockstep_.rank(); }
  int world_size() const override { return first_rank(num_nodes_); }
  void all_reduce(const float* const* local, const int* num_roots, int64_t count, const JoinFn& join,
                  float* out) override;
  void exchange_rows(uint8_t* rows, int64_t num_rows, int64_t row_bytes, int64_t stride, const int32_t* owner) override;
  void all_gather(const void* local, const int64_t* counts, void* out) override;
  void set_step(int64_t step) override { lockstep_.set_step(step); }
  void abort() override;
  Stats take_stats() override;

 private:
  struct Reduction {
    const float* const* local;
    const int* num_roots;
    const JoinFn* join;
    float* out;
    std::vector<int> node_roots;  // [num_nodes]
    int total_roots;
  };

  struct Range {
    int64_t begin, count;  // elements
  };

  bool is_leader() const { return session_ != nullptr; }
  int local_size() const { return lockstep_.world_size(); }
  int first_rank(int node) const { return node * lockstep_.world_size(); }
  // Runs a collective: an error ends it on the other hosts too.
  void collective(CollectiveKind kind, int64_t bytes, uint32_t layout, const std::function<void()>& body);
  HostExchange new_exchange();
  void exchange(const HostExchange& exchange, CollectiveKind kind);

  void reduce_piece(const Reduction& args, int64_t begin, int64_t count);
  // Leaves pointers to the partial sums of this host's ranks in host_roots_, on its leader.
  void gather_roots(const Reduction& args, int64_t begin, int64_t count);
  template <typename RangeOf>
  void exchange_and_join(const Reduction& args, int64_t begin, RangeOf range_of);
  void reduce_at_once(const Reduction& args, int64_t begin, int64_t count);
  void reduce_by_slices(const Reduction& args, int64_t begin, int64_t count);
  void gather_bytes(const uint8_t* local, const int64_t* counts, uint8_t* out, CollectiveKind kind);
  // Copies ranges of the leader's bytes to the other ranks of its host.
  void share(uint8_t* const* ranges, const int64_t* sizes, int num_ranges);

  Lockstep lockstep_;
  const int node_, num_nodes_;
  const std::unique_ptr<LeaderSession> session_;
  uint32_t num_exchanges_ = 0;  // of the current collective
  Stats sent_;                  // to other hosts
  std::vector<float> host_sums_, other_sums_;
  std::vector<const float*> host_roots_, inputs_;
  std::vector<uint8_t> packed_rows_;
};

}  // namespace nds::comm
