// Exchange between ranks during a pass: through host memory, or by NCCL.
#include "cuda/exchange.h"

#include <sched.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "cuda/nccl.h"

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

// What a rank says of itself before ranks choose how to exchange.
struct Endpoint {
  char bus_id[32] = {};   // of its device
  char reason[512] = {};  // why it lacks NCCL; empty where it has it
  NcclId id;              // of rank 0
  bool may_share_memory = false;
};

// Whether two ranks of one host use one device. Ranks of a host follow each other; devices of several hosts may have
// the same address.
bool share_devices(const std::vector<Endpoint>& all, size_t ranks_per_host) {
  for (size_t a = 0; a < all.size(); a++) {
    for (size_t b = a / ranks_per_host * ranks_per_host; b < a; b++) {
      if (std::strcmp(all[a].bus_id, all[b].bus_id) == 0) return true;
    }
  }
  return false;
}

// An emulated device has no NCCL but the one that the environment names.
bool may_have_nccl() {
#if defined(NDS_EMULATED)
  return std::getenv("NDS_NCCL_PATH") != nullptr;
#else
  return true;
#endif
}

}  // namespace

void Exchange::all_reduce(float*, int64_t, cudaStream_t) {
  throw Error("ERR_INTERNAL", "Expected an exchange with all-reduce");
}

std::unique_ptr<Exchange> make_exchange(comm::Communicator& comm, const BackendOptions& options, int device,
                                        const std::atomic<bool>& closed, const uint32_t* stop) {
  if (comm.world_size() == 1) return make_host_staged_exchange(comm);
  const Library library = may_have_nccl() ? open_nccl() : Library{};
  Endpoint mine;
  check(cudaDeviceGetPCIBusId(mine.bus_id, sizeof(mine.bus_id), device), "asking for a device's address");
  library.reason.copy(mine.reason, sizeof(mine.reason) - 1);
  if (comm.rank() == 0 && library.handle != nullptr) mine.id = make_nccl_id(library);
  mine.may_share_memory = may_share_memory();
  std::vector<Endpoint> all(comm.world_size());
  comm.all_gather(&mine, std::vector<int64_t>(comm.world_size(), sizeof(mine)).data(), all.data());
  if (share_devices(all, static_cast<size_t>(options.local_world_size))) return make_host_staged_exchange(comm);
  std::vector<std::string> bus_ids;
  bool may_share = options.num_nodes == 1;
  for (int r = 0; r < comm.world_size(); r++) {
    if (all[r].reason[0] != 0)
      throw Error("ERR_CUDA", "Expected NCCL for ranks on several devices but rank " + std::to_string(r) +
                                  " found none: " + all[r].reason);
    may_share = may_share && all[r].may_share_memory;
    bus_ids.emplace_back(all[r].bus_id);
  }
  std::unique_ptr<Exchange> exchange =
      may_have_nccl() ? join_nccl(library, all[0].id, options, closed) : make_host_staged_exchange(comm);
  if (may_share) exchange->connect(PeerMemory::open(comm, options, device, bus_ids, stop));
  return exchange;
}

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
