// A host's connections to other hosts, as nds_cuda.so sees them.
#pragma once
#include <memory>

#include "comm/leaders.h"
#include "core/backend.h"
#include "core/cuda_interface.h"

namespace nds::addon {

// Must outlive the backend that it is given to.
class LeadersForCuda {
 public:
  explicit LeadersForCuda(const BackendOptions& options);
  LeadersForCuda(const LeadersForCuda&) = delete;
  LeadersForCuda& operator=(const LeadersForCuda&) = delete;

  // Null where options has no leaders.
  const NdsLeaders* table() const { return leaders_ == nullptr ? nullptr : &table_; }
  std::unique_ptr<comm::LeaderSession> open_session(const comm::LeaderOptions& options) const;

 private:
  const std::shared_ptr<comm::Leaders> leaders_;
  const Progress progress_;
  NdsLeaders table_{};
};

}  // namespace nds::addon
