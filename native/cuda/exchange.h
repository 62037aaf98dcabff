// Exchange between ranks during a pass: device memory in, device memory out, in stream order.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "core/backend.h"
#include "cuda/memory.h"
#include "cuda/peer_memory.h"

namespace nds::cuda {

// Bytes that this rank has contributed.
struct Traffic {
  int64_t bytes = 0;
  int64_t all_reduce_bytes = 0;  // part of bytes

  Traffic operator-(const Traffic& other) const {
    return {bytes - other.bytes, all_reduce_bytes - other.all_reduce_bytes};
  }
};

class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual int rank() const = 0;
  virtual int world_size() const = 0;
  // Rank r contributes counts[r] bytes; out receives those of all ranks in rank order. Pointers are device memory;
  // local may be the part of this rank in out.
  virtual void all_gather(const void* local, const std::vector<int64_t>& counts, void* out, cudaStream_t stream) = 0;
  // Whether all_reduce() is there.
  virtual bool has_all_reduce() const { return false; }
  // data [count] becomes the sum over ranks, the same on each; the order of summation is the library's.
  virtual void all_reduce(float* data, int64_t count, cudaStream_t stream);
  // Whether the host queues a collective without waiting for it. Only then can a pass be captured and two steps be in
  // flight.
  virtual bool is_asynchronous() const = 0;
  // @throws Error ERR_CUDA when a collective has failed on the way.
  virtual void check_health() {}
  // Work that waits for other ranks gives up, and its results mean nothing. The thread of the other calls calls it.
  virtual void abort() {}

  // The memory of peers, through which one kernel adds small sums; null: none is shared.
  PeerMemory* peers() const { return peers_.get(); }
  void connect(std::unique_ptr<PeerMemory> peers) { peers_ = std::move(peers); }

  // Work of a graph that has been launched is contributed again.
  void count(const Traffic& more) {
    traffic_.bytes += more.bytes;
    traffic_.all_reduce_bytes += more.all_reduce_bytes;
  }
  const Traffic& traffic() const { return traffic_; }

 private:
  Traffic traffic_;
  std::unique_ptr<PeerMemory> peers_;
};

// Exchange through host memory and `comm`, which counts the traffic: for ranks that share a device, which NCCL refuses,
// and for emulated devices. Each collective waits for the stream.
std::unique_ptr<Exchange> make_host_staged_exchange(comm::Communicator& comm);

// NCCL where each rank has a device of its own, else through the host. All ranks meet in `comm`, which carries the
// unique id that rank 0 makes. Ranks with a device each share memory too, where the devices reach each other; on a
// shared device, kernels that wait for each other would take turns, a time slice for each wait. stop: see PeerMemory.
// @throws Error ERR_CUDA where a rank lacks NCCL or NCCL refuses, ERR_STEP_TIMEOUT after options.startup_timeout_ms,
// ERR_CLOSED once `closed`.
std::unique_ptr<Exchange> make_exchange(comm::Communicator& comm, const BackendOptions& options, int device,
                                        const std::atomic<bool>& closed, const uint32_t* stop);

// Polls until all work of the stream is done. @throws Error ERR_CLOSED once *closed, ERR_CUDA where the work failed.
void wait_for(cudaStream_t stream, const std::atomic<bool>* closed);

}  // namespace nds::cuda
