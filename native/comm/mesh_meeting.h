// How leaders find each other: node i listens, every node above it connects, and both prove that they hold the key.
#pragma once
#include <atomic>
#include <memory>
#include <vector>

#include "comm/mesh.h"

namespace nds::comm {

// [num_nodes] links, null for this node. Returns once all stand.
// @throws Error ERR_PEER_LOST for nodes that did not come in time, ERR_CLOSED once `aborted`.
std::vector<std::unique_ptr<MeshLink>> meet(const Descriptor& listener, const MeshOptions& options,
                                            const WakePipe& wake, const std::atomic<bool>& aborted);

}  // namespace nds::comm
