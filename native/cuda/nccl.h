// NCCL, by our own declarations of the functions that are used: no header and no version is pinned.
#pragma once
#include <atomic>
#include <memory>
#include <string>

#include "cuda/exchange.h"
#include "cuda/libraries.h"

namespace nds::cuda {

// ncclUniqueId
struct NcclId {
  char internal[128] = {};
};

// A new id for a communicator. @throws Error ERR_CUDA.
NcclId make_nccl_id(const Library& library);

// Joins options.world_size ranks over one id, each on the current device of its process. Returns once all have joined.
// @throws Error ERR_CUDA, ERR_STEP_TIMEOUT after options.startup_timeout_ms, ERR_CLOSED once `closed`.
std::unique_ptr<Exchange> join_nccl(const Library& library, const NcclId& id, const BackendOptions& options,
                                    const std::atomic<bool>& closed);

}  // namespace nds::cuda
