// Memory that ranks with a device each share by CUDA IPC, and the all-reduce of few elements over it.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "core/backend.h"
#include "cuda/memory.h"
#include "cuda/one_shot.h"

namespace nds::cuda {

// Whether NDS_CUDA_IPC leaves it to us: all but 0. @throws Error ERR_USAGE for anything but 0 and 1.
bool may_share_memory();

class PeerMemory {
 public:
  // Opens the buffers of all ranks in each of them; all ranks meet in `comm`, whose ranks share a host. bus_ids: of the
  // device of each rank, all different. stop: in pinned memory; not 0 ends all waits for peers. Null on every rank
  // where there are more than kMaxPeers ranks, or the device of one cannot reach that of another.
  // @throws Error ERR_CUDA where devices reach each other and CUDA IPC fails.
  static std::unique_ptr<PeerMemory> open(comm::Communicator& comm, const BackendOptions& options, int device,
                                          const std::vector<std::string>& bus_ids, const uint32_t* stop);
  ~PeerMemory();
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;

  // Where a wait for a rank that does not come is reported: StepFault::lost_rank. Must be set before all_reduce().
  void report_to(unsigned long long* fault) { group_.fault = fault; }
  bool serves(const std::vector<int>& num_roots, int64_t count) const { return one_shot_serves(num_roots, count); }
  // out [count] = the num_roots[r] partial sums of each rank r joined by merges, + bias [width] where there is one.
  // Queues one kernel; local [num_roots of this rank, count].
  void all_reduce(const float* local, const std::vector<int>& num_roots, const std::vector<uint8_t>& merges,
                  const float* bias, int64_t width, int64_t count, float* out, LaunchPlace place) const;

 private:
  PeerMemory() = default;
  // What CUDA says against it, or ''.
  std::string share(cudaIpcMemHandle_t& handle);
  std::string open_peer(int rank, const cudaIpcMemHandle_t& handle);

  DeviceMemory mine_;
  PeerGroup group_{};
};

}  // namespace nds::cuda
