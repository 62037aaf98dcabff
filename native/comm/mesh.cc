// Connections between the leaders of all hosts: pairwise, over TCP.
#include "comm/mesh.h"

#include "comm/mesh_meeting.h"
#include "comm/mesh_session.h"
#include "core/error.h"

namespace nds::comm {

std::shared_ptr<Mesh> Mesh::listen(const std::string& local_address) {
  std::shared_ptr<Mesh> mesh(new Mesh);
  mesh->listener_ = listen_on(local_address, mesh->port_);
  return mesh;
}

void Mesh::connect(const MeshOptions& options) {
  const size_t num_nodes = options.addresses.size();
  const bool is_place = options.node_rank >= 0 && static_cast<size_t>(options.node_rank) < num_nodes;
  if (!is_place || num_nodes < 2 || options.ports.size() != num_nodes)
    throw Error("ERR_INTERNAL", "Expected a node below the number of addresses, and a port for each of two or more");
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!links_.empty() || !listener_.is_open())
    throw Error("ERR_INTERNAL", "Expected a mesh that listens but received one that has met");
  node_rank_ = options.node_rank;
  addresses_ = options.addresses;
  std::vector<std::unique_ptr<MeshLink>> links = meet(listener_, options, wake_, aborted_);
  links_ = std::move(links);
  listener_.reset();
}

void Mesh::abort() {
  aborted_.store(true);
  wake_.wake();
}

std::unique_ptr<LeaderSession> Mesh::open_session(const LeaderOptions& options) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (links_.empty()) throw Error("ERR_INTERNAL", "Expected a mesh that has met before its first session");
  session_++;
  return std::make_unique<MeshSession>(shared_from_this(), session_, options);
}

}  // namespace nds::comm
