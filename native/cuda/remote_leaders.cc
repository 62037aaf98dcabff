// The exchange between hosts, which nds.node offers through its plain C interface.
#include "cuda/remote_leaders.h"

#include <string>
#include <vector>

#include "core/error.h"

namespace nds::cuda {
namespace {

// The codes of a session, as literals.
void check_session(int status, const NdsCudaError& error) {
  if (status == 0) return;
  static const char* const kCodes[] = {"ERR_CLOSED", "ERR_STEP_TIMEOUT", "ERR_MISMATCH", "ERR_PROTOCOL"};
  for (const char* code : kCodes) {
    if (std::string(code) == error.code) throw Error(code, error.message);
  }
  throw Error("ERR_INTERNAL", std::string(error.code) + ": " + error.message);
}

class RemoteSession final : public comm::LeaderSession {
 public:
  RemoteSession(const NdsLeaders& table, const comm::LeaderOptions& options) : table_(table) {
    NdsCudaError error{};
    check_session(table_.open_session(table_.leaders, options.ranks_per_node, options.step_timeout_ms,
                                      options.startup_timeout_ms, &session_, &error),
                  error);
  }
  ~RemoteSession() override { table_.close_session(session_); }

  void exchange(const comm::HostExchange& exchange) override {
    sends_.clear();
    receives_.clear();
    for (size_t n = 0; n < exchange.sends.size(); n++) {
      const int32_t node = static_cast<int32_t>(n);
      for (const comm::ConstPart& part : exchange.sends[n])
        sends_.push_back({const_cast<void*>(part.data), part.bytes, node, 0});
      for (const comm::Part& part : exchange.receives[n]) receives_.push_back({part.data, part.bytes, node, 0});
    }
    const comm::Description& collective = exchange.collective;
    const NdsLeaderExchange plain{collective.sequence,
                                  collective.kind,
                                  collective.layout,
                                  exchange.index,
                                  collective.bytes,
                                  exchange.step,
                                  sends_.data(),
                                  receives_.data(),
                                  static_cast<int64_t>(sends_.size()),
                                  static_cast<int64_t>(receives_.size()),
                                  static_cast<int32_t>(exchange.sends.size()),
                                  0};
    NdsCudaError error{};
    check_session(table_.exchange(session_, &plain, &error), error);
  }

  void fail(const char* code, const std::string& message) override { table_.fail(session_, code, message.c_str()); }
  void abort() override { table_.abort(session_); }
  double take_wait_seconds() override { return table_.take_wait_seconds(session_); }

 private:
  const NdsLeaders& table_;
  void* session_ = nullptr;
  std::vector<NdsLeaderPart> sends_, receives_;
};

class RemoteLeaders final : public comm::Leaders {
 public:
  explicit RemoteLeaders(const NdsLeaders& table) : table_(table) {}
  int node_rank() const override { return table_.node_rank; }
  int num_nodes() const override { return table_.num_nodes; }
  std::unique_ptr<comm::LeaderSession> open_session(const comm::LeaderOptions& options) override {
    return std::make_unique<RemoteSession>(table_, options);
  }

 private:
  const NdsLeaders& table_;
};

}  // namespace

std::shared_ptr<comm::Leaders> remote_leaders(const NdsLeaders& table) {
  return std::make_shared<RemoteLeaders>(table);
}

}  // namespace nds::cuda
