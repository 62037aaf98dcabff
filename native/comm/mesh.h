// Connections between the leaders of all hosts: pairwise, over TCP.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "comm/leaders.h"
#include "comm/mesh_link.h"
#include "comm/socket.h"

namespace nds::comm {

struct MeshOptions {
  int node_rank = 0;
  uint64_t epoch = 0;
  Key key{};
  // [num_nodes] numeric address and port of each node; those of this one are not used.
  std::vector<std::string> addresses;
  std::vector<int> ports;
  int64_t timeout_ms = 600000;
};

class Mesh final : public Leaders, public std::enable_shared_from_this<Mesh> {
 public:
  // Listens on a free port of a local numeric address. @throws Error as listen_on().
  static std::shared_ptr<Mesh> listen(const std::string& local_address);
  int port() const { return port_; }
  // Connects to all other leaders, who do the same, and stops listening. Strangers and whoever lacks the key are
  // dropped. @throws Error ERR_PEER_LOST for a node that did not come in time, ERR_CLOSED after abort().
  void connect(const MeshOptions& options);
  // Any thread may call this: connect() throws, and so do all sessions.
  void abort();

  int node_rank() const override { return node_rank_; }
  int num_nodes() const override { return static_cast<int>(links_.size()); }
  std::unique_ptr<LeaderSession> open_session(const LeaderOptions& options) override;

 private:
  friend class MeshSession;
  Mesh() = default;

  Descriptor listener_;
  int port_ = 0;
  int node_rank_ = 0;
  std::vector<std::string> addresses_;
  std::atomic<bool> aborted_{false};
  WakePipe wake_;
  // Guards the links and the session; a session holds it during an exchange.
  std::mutex mutex_;
  std::vector<std::unique_ptr<MeshLink>> links_;  // [num_nodes], null for this one; empty until connected
  uint32_t session_ = 0;                          // the newest
};

}  // namespace nds::comm
