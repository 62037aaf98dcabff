// How the leaders of several hosts, the first rank of each, exchange bytes for a communicator.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/collective.h"
#include "core/progress.h"

namespace nds::comm {

struct ConstPart {
  const void* data;
  int64_t bytes;
};

struct Part {
  void* data;
  int64_t bytes;
};

// One meeting of all leaders. parts [num_nodes][…]; those of this node are empty.
struct HostExchange {
  Description collective;
  uint32_t index;  // among the exchanges of this collective
  int64_t step;
  std::vector<std::vector<ConstPart>> sends;
  std::vector<std::vector<Part>> receives;
};

// The exchanges of one communicator. One thread calls all members except abort().
class LeaderSession {
 public:
  virtual ~LeaderSession() = default;  // tells the other leaders that this one left
  // Sends to, and receives from, every other leader. @throws Error ERR_STEP_TIMEOUT, ERR_MISMATCH, ERR_PROTOCOL, or
  // ERR_CLOSED after abort() or once a peer has left; the other leaders are told of it.
  virtual void exchange(const HostExchange& exchange) = 0;
  // Tells the other leaders that this host gives up, and why: they throw the same code.
  virtual void fail(const char* code, const std::string& message) = 0;
  virtual void abort() = 0;                // from any thread
  virtual double take_wait_seconds() = 0;  // since the last call
};

struct LeaderOptions {
  int ranks_per_node = 1;
  int64_t step_timeout_ms = 60000;
  int64_t startup_timeout_ms = 600000;  // until the first step
  Progress progress = {};
};

// Connections between leaders. Serves sessions one after another: the same number on every leader, even after one was
// left in the middle.
class Leaders {
 public:
  virtual ~Leaders() = default;
  virtual int node_rank() const = 0;
  virtual int num_nodes() const = 0;
  virtual std::unique_ptr<LeaderSession> open_session(const LeaderOptions& options) = 0;
};

}  // namespace nds::comm
