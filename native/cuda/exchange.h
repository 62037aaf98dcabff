// Exchange between ranks during a pass: device memory in, device memory out, in stream order.
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
  // Rank r contributes counts[r] bytes; out receives those of all ranks in rank order. Pointers are device memory;
  // local may be the part of this rank in out.
  virtual void all_gather(const void* local, const std::vector<int64_t>& counts, void* out, cudaStream_t stream) = 0;
  // Whether the host queues a gather without waiting for it. Only then can a pass be captured and two steps be in
  // flight.
  virtual bool is_asynchronous() const = 0;
};

// Exchange through host memory and `comm`: for ranks that share a device, which NCCL refuses, and for emulated devices.
// Each gather waits for the stream.
std::unique_ptr<Exchange> make_host_staged_exchange(comm::Communicator& comm);

// Polls until all work of the stream is done. @throws Error ERR_CLOSED once *closed, ERR_CUDA where the work failed.
void wait_for(cudaStream_t stream, const std::atomic<bool>* closed);

}  // namespace nds::cuda
