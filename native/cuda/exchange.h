// What ranks give each other during a pass: device memory in, device memory out, in stream order.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "cuda/memory.h"

namespace nds::cuda {

class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual int rank() const = 0;
  virtual int world_size() const = 0;
  // Rank r contributes counts[r] bytes; out gets all of them in rank order. All pointers are device memory; out may
  // hold local in its place.
  virtual void all_gather(const void* local, const std::vector<int64_t>& counts, void* out, cudaStream_t stream) = 0;
  // Whether work can be queued behind a gather without the host waiting for it: so that it can be captured, and two
  // steps can be in flight.
  virtual bool is_asynchronous() const = 0;
};

// Through host memory and the communicator of the host's ranks: for ranks that share a device, where NCCL has no use,
// and for emulated devices. Waits for the stream at every gather.
std::unique_ptr<Exchange> make_host_staged_exchange(comm::Communicator& comm);

// Waits until all work of the stream is done, without blocking in the driver: gives up with ERR_CLOSED once `closed`.
void wait_for(cudaStream_t stream, const std::atomic<bool>* closed);

}  // namespace nds::cuda
