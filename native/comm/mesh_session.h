// The exchanges of one communicator over a mesh.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "comm/mesh.h"
#include "comm/mesh_transfer.h"

namespace nds::comm {

class MeshSession final : public LeaderSession {
 public:
  MeshSession(std::shared_ptr<Mesh> mesh, uint32_t number, const LeaderOptions& options);
  ~MeshSession() override;
  void exchange(const HostExchange& exchange) override;
  void fail(const char* code, const std::string& message) override;
  void abort() override;
  double take_wait_seconds() override;

 private:
  MeshLink* link(int node) const { return mesh_->links_[node].get(); }
  bool is_sending(int node) const;
  bool is_receiving(int node) const;
  void run(const HostExchange& exchange);
  bool go_on(int node);
  bool send_more(int node);
  void stage_frame(int node);
  bool receive_more(int node);
  void take_frame(int node);
  void poll_peers(int64_t milliseconds) const;
  void check_still_wanted() const;
  // Tells each peer once why this host leaves; waits a moment where a connection is full.
  void depart(Departure why, const std::string& message);
  // For an abort() that came while nothing was exchanged.
  void depart_if_aborted();

  [[noreturn]] void give_up(const char* code, const std::string& message) const;
  std::string node_name(int node) const;
  std::string story() const;    // "rank 0 waited 1.0 s for ranks 2-3 (node 1, 10.0.0.2)"
  std::string missing() const;  // nodes that are waited for
  int first_missing() const;    // a node

  const std::shared_ptr<Mesh> mesh_;
  const uint32_t number_;
  const LeaderOptions options_;
  const HostExchange* exchange_ = nullptr;  // in progress
  std::vector<Transfer> transfers_;         // [num_nodes]
  int64_t waiting_since_ = 0;
  double wait_seconds_ = 0;
  bool departed_ = false;
  std::atomic<bool> aborted_{false};
};

}  // namespace nds::comm
