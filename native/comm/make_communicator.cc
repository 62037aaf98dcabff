// The one place that chooses a gang's communicator.
#include "comm/make_communicator.h"

#include <algorithm>
#include <utility>

#include "comm/hosts.h"
#include "core/error.h"

namespace nds::comm {
namespace {

// The farther a rank is from one that does not come, the longer it waits, so that the first to give up names it.
constexpr int64_t kMaxGraceMs = 2000;

int64_t with_grace(int64_t timeout_ms, int distance) {
  return timeout_ms + distance * std::min(kMaxGraceMs, timeout_ms / 4);
}

std::unique_ptr<Communicator> make_hosts(const BackendOptions& o) {
  const bool is_leader = o.local_rank == 0;
  const int node_rank = o.local_world_size > 0 ? o.rank / o.local_world_size : 0;
  const bool is_place = o.world_size == o.num_nodes * o.local_world_size && o.local_rank >= 0 &&
                        o.local_rank < o.local_world_size && o.rank % o.local_world_size == o.local_rank;
  if (!is_place)
    throw Error("ERR_INTERNAL", "Expected node " + std::to_string(node_rank) +
                                    " to hold consecutive ranks, as many as each of the " +
                                    std::to_string(o.num_nodes) + " nodes, but received rank " +
                                    std::to_string(o.rank) + " of " + std::to_string(o.world_size) + ", local rank " +
                                    std::to_string(o.local_rank) + " of " + std::to_string(o.local_world_size));
  if (is_leader != (o.leaders != nullptr) ||
      (is_leader && (o.leaders->num_nodes() != o.num_nodes || o.leaders->node_rank() != node_rank)))
    throw Error("ERR_INTERNAL", "Expected local rank 0 of node " + std::to_string(node_rank) +
                                    ", and no other, with a mesh of " + std::to_string(o.num_nodes) + " nodes");
  const int distance = is_leader ? 0 : 2;
  const CommOptions local{.rank = o.local_rank,
                          .world_size = o.local_world_size,
                          .shm_fd = o.shm_fd,
                          .step_timeout_ms = with_grace(o.step_timeout_ms, distance),
                          .startup_timeout_ms = with_grace(o.startup_timeout_ms, distance),
                          .first_rank = node_rank * o.local_world_size,
                          .crowded = o.crowded && !o.on_cuda,
                          .progress = o.progress};
  check_timeouts(local);
  std::shared_ptr<ShmRegion> region =
      o.local_world_size == 1 ? ShmRegion::of_one_rank() : std::make_shared<ShmRegion>(o.shm_fd, o.local_world_size);
  std::unique_ptr<LeaderSession> session;
  if (is_leader)
    session = o.leaders->open_session({.ranks_per_node = o.local_world_size,
                                       .step_timeout_ms = with_grace(o.step_timeout_ms, 1),
                                       .startup_timeout_ms = with_grace(o.startup_timeout_ms, 1),
                                       .progress = o.progress});
  return std::make_unique<HostsCommunicator>(std::move(region), local, node_rank, o.num_nodes, std::move(session));
}

}  // namespace

std::unique_ptr<Communicator> make_communicator(const BackendOptions& options) {
  if (options.num_nodes > 1) return make_hosts(options);
  if (options.world_size == 1) return make_local();
  return make_shm({.rank = options.rank,
                   .world_size = options.world_size,
                   .shm_fd = options.shm_fd,
                   .step_timeout_ms = options.step_timeout_ms,
                   .startup_timeout_ms = options.startup_timeout_ms,
                   .first_rank = 0,
                   .crowded = options.crowded && !options.on_cuda,
                   .progress = options.progress});
}

}  // namespace nds::comm
