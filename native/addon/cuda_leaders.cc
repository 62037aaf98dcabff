// A host's connections to other hosts, as nds_cuda.so sees them.
#include "addon/cuda_leaders.h"

#include <cstdio>
#include <exception>

#include "addon/js.h"
#include "core/error.h"

namespace nds::addon {
namespace {

comm::LeaderSession& session_of(void* session) { return *static_cast<comm::LeaderSession*>(session); }

// No exception crosses the interface.
template <typename Body>
int caught(NdsCudaError* error, Body body) {
  try {
    body();
    return 0;
  } catch (const std::exception& thrown) {
    const Error plain = as_error(thrown);
    std::snprintf(error->code, sizeof(error->code), "%s", plain.code);
    std::snprintf(error->message, sizeof(error->message), "%s", plain.what());
    return 1;
  }
}

int open_session(void* leaders, int32_t ranks_per_node, int64_t step_timeout_ms, int64_t startup_timeout_ms,
                 void** session, NdsCudaError* error) {
  return caught(error, [&] {
    comm::LeaderOptions options;
    options.ranks_per_node = ranks_per_node;
    options.step_timeout_ms = step_timeout_ms;
    options.startup_timeout_ms = startup_timeout_ms;
    *session = static_cast<LeadersForCuda*>(leaders)->open_session(options).release();
  });
}

int exchange(void* session, const NdsLeaderExchange* from, NdsCudaError* error) {
  return caught(error, [&] {
    comm::HostExchange exchange{};
    exchange.collective = {from->sequence, from->kind, from->bytes, from->layout, 0};
    exchange.index = from->index;
    exchange.step = from->step;
    exchange.sends.resize(static_cast<size_t>(from->num_nodes));
    exchange.receives.resize(static_cast<size_t>(from->num_nodes));
    for (int64_t i = 0; i < from->num_sends; i++) {
      const NdsLeaderPart& part = from->sends[i];
      exchange.sends.at(static_cast<size_t>(part.node)).push_back({part.data, part.bytes});
    }
    for (int64_t i = 0; i < from->num_receives; i++) {
      const NdsLeaderPart& part = from->receives[i];
      exchange.receives.at(static_cast<size_t>(part.node)).push_back({part.data, part.bytes});
    }
    session_of(session).exchange(exchange);
  });
}

}  // namespace

LeadersForCuda::LeadersForCuda(const BackendOptions& options) : leaders_(options.leaders), progress_(options.progress) {
  if (leaders_ == nullptr) return;
  table_ = {this,
            leaders_->node_rank(),
            leaders_->num_nodes(),
            addon::open_session,
            [](void* session) { delete static_cast<comm::LeaderSession*>(session); },
            addon::exchange,
            [](void* session, const char* code, const char* message) { session_of(session).fail(code, message); },
            [](void* session) { session_of(session).abort(); },
            [](void* session) { return session_of(session).take_wait_seconds(); }};
}

std::unique_ptr<comm::LeaderSession> LeadersForCuda::open_session(const comm::LeaderOptions& options) const {
  comm::LeaderOptions own = options;
  own.progress = progress_;
  return leaders_->open_session(own);
}

}  // namespace nds::addon
