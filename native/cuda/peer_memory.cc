// Memory that ranks with a device each share by CUDA IPC: how it is shared, opened and closed.
#include "cuda/peer_memory.h"

#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "core/round_up.h"

namespace nds::cuda {
namespace {

// Shared memory is made of pages of this size: a smaller array would share one with others.
constexpr int64_t kPageBytes = 2 << 20;

struct Answer {
  char error[256] = {};  // empty: none
  cudaIpcMemHandle_t handle{};
};

template <typename T>
std::vector<T> gather(comm::Communicator& comm, const T& mine) {
  std::vector<T> all(comm.world_size());
  comm.all_gather(&mine, std::vector<int64_t>(comm.world_size(), sizeof(T)).data(), all.data());
  return all;
}

// A device that this process does not see counts as one that it does not reach.
bool reaches(int device, const std::string& bus_id) {
  int peer = -1, can_access = 0;
  const bool is_seen = cudaDeviceGetByPCIBusId(&peer, bus_id.c_str()) == cudaSuccess;
  if (!is_seen || cudaDeviceCanAccessPeer(&can_access, device, peer) != cudaSuccess) {
    cudaGetLastError();  // clears it
    return false;
  }
  return can_access != 0;
}

std::string text_of(cudaError_t error) {
  if (error == cudaSuccess) return "";
  cudaGetLastError();  // clears it
  return cudaGetErrorString(error);
}

// Gathers what all ranks say of `what`. @throws Error ERR_CUDA on every rank where one of them failed.
std::vector<Answer> agree(comm::Communicator& comm, const std::string& error, const cudaIpcMemHandle_t& handle,
                          const char* what) {
  Answer mine;
  error.copy(mine.error, sizeof(mine.error) - 1);
  mine.handle = handle;
  const std::vector<Answer> all = gather(comm, mine);
  for (int r = 0; r < comm.world_size(); r++) {
    if (all[r].error[0] != 0)
      throw Error("ERR_CUDA", "Expected rank " + std::to_string(r) + " to " + what +
                                  " by CUDA IPC, since the devices reach each other, but received: " + all[r].error +
                                  ". NDS_CUDA_IPC=0 does without");
  }
  return all;
}

}  // namespace

bool may_share_memory() {
  const char* const text = std::getenv("NDS_CUDA_IPC");
  if (text == nullptr || std::strcmp(text, "1") == 0) return true;
  if (std::strcmp(text, "0") == 0) return false;
  throw Error("ERR_USAGE", "Expected NDS_CUDA_IPC to be 0 or 1 but received " + std::string(text));
}

std::unique_ptr<PeerMemory> PeerMemory::open(comm::Communicator& comm, const BackendOptions& options, int device,
                                             const std::vector<std::string>& bus_ids, const uint32_t* stop) {
  if (comm.world_size() > kMaxPeers) return nullptr;
  uint8_t reaches_all = 1;
  for (int r = 0; r < comm.world_size(); r++)
    if (r != comm.rank() && !reaches(device, bus_ids[r])) reaches_all = 0;
  for (const uint8_t one : gather(comm, reaches_all))
    if (one == 0) return nullptr;

  std::unique_ptr<PeerMemory> memory(new PeerMemory);
  PeerGroup& group = memory->group_;
  group.rank = comm.rank();
  group.world_size = comm.world_size();
  group.timeout_ns = static_cast<uint64_t>(options.step_timeout_ms) * 1000000;
  group.stop = stop;
  cudaIpcMemHandle_t handle{};
  const std::string not_shared = memory->share(handle);
  const std::vector<Answer> offers = agree(comm, not_shared, handle, "share memory");
  std::string not_opened;
  for (int r = 0; r < comm.world_size() && not_opened.empty(); r++)
    if (r != comm.rank()) not_opened = memory->open_peer(r, offers[r].handle);
  agree(comm, not_opened, handle, "open its peers' memory");
  return memory;
}

std::string PeerMemory::share(cudaIpcMemHandle_t& handle) {
  mine_ = DeviceMemory(round_up(static_cast<int64_t>(sizeof(PeerBuffer)), kPageBytes), "what ranks exchange");
  group_.buffers[group_.rank] = mine_.as<PeerBuffer>();
  check(cudaMemset(mine_.as<>(), 0, sizeof(PeerBuffer)), "clearing memory for peers");
  // Flags are zeros before a peer may set one.
  check(cudaDeviceSynchronize(), "clearing memory for peers");
  return text_of(cudaIpcGetMemHandle(&handle, mine_.as<>()));
}

std::string PeerMemory::open_peer(int rank, const cudaIpcMemHandle_t& handle) {
  void* address = nullptr;
  const cudaError_t error = cudaIpcOpenMemHandle(&address, handle, cudaIpcMemLazyEnablePeerAccess);
  if (error == cudaSuccess) group_.buffers[rank] = static_cast<PeerBuffer*>(address);
  return text_of(error);
}

// A step is collected once all ranks have met on the host, hence have read what it published: only peers of a step that
// was never collected may still read, and their results mean nothing.
PeerMemory::~PeerMemory() {
  for (int r = 0; r < group_.world_size; r++)
    if (r != group_.rank && group_.buffers[r] != nullptr) cudaIpcCloseMemHandle(group_.buffers[r]);
}

void PeerMemory::all_reduce(const float* local, const std::vector<int>& num_roots, const std::vector<uint8_t>& merges,
                            const float* bias, int64_t width, int64_t count, float* out, LaunchPlace place) const {
  OneShotArgs args{};
  args.group = group_;
  args.local = local;
  args.bias = bias;
  args.width = width;
  args.count = count;
  args.out = out;
  plan_one_shot(num_roots, merges, args);
  all_reduce_one_shot(args, place);
}

}  // namespace nds::cuda
