// Exchange between ranks during a pass, through host memory.
#include "cuda/exchange.h"

#include <sched.h>

#include <cstring>

namespace nds::cuda {
namespace {

class HostStagedExchange final : public Exchange {
 public:
  explicit HostStagedExchange(comm::Communicator& comm) : comm_(comm) {}

  int rank() const override { return comm_.rank(); }
  int world_size() const override { return comm_.world_size(); }
  bool is_asynchronous() const override { return world_size() == 1; }

  void all_gather(const void* local, const std::vector<int64_t>& counts, void* out, cudaStream_t stream) override {
    int64_t total = 0;
    for (const int64_t count : counts) total += count;
    const int64_t mine = counts[rank()];
    if (world_size() == 1) {
      if (out == local || mine == 0) return;
      check(cudaMemcpyAsync(out, local, static_cast<size_t>(mine), cudaMemcpyDeviceToDevice, stream), "copying");
      return;
    }
    uint8_t* from = local_.reserve(mine);
    uint8_t* all = all_.reserve(total);
    if (mine > 0)
      check(cudaMemcpyAsync(from, local, static_cast<size_t>(mine), cudaMemcpyDeviceToHost, stream), "copying to host");
    wait_for(stream, nullptr);
    comm_.all_gather(from, counts.data(), all);
    if (total == 0) return;
    check(cudaMemcpyAsync(out, all, static_cast<size_t>(total), cudaMemcpyHostToDevice, stream), "copying to device");
    // The next gather writes over what this copy reads.
    wait_for(stream, nullptr);
  }

 private:
  comm::Communicator& comm_;
  PinnedMemory local_, all_;
};

}  // namespace

std::unique_ptr<Exchange> make_host_staged_exchange(comm::Communicator& comm) {
  return std::make_unique<HostStagedExchange>(comm);
}

void wait_for(cudaStream_t stream, const std::atomic<bool>* closed) {
  for (;;) {
    const cudaError_t status = cudaStreamQuery(stream);
    if (status == cudaSuccess) return;
    if (status != cudaErrorNotReady) check(status, "work on the device");
    if (closed != nullptr && closed->load(std::memory_order_relaxed))
      throw Error("ERR_CLOSED", "Expected an open backend but it was closed");
    sched_yield();
  }
}

}  // namespace nds::cuda
