// A stand-in for NCCL on the emulated device: collectives between processes of one host, over shared memory. As on a
// device, work of a stream waits for its peers without end, until ncclCommAbort. It demands what NCCL demands: that
// ranks call the same collectives in the same order, which NCCL answers with a hang or with wrong data.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kMaxRanks = 16;
constexpr size_t kChunkBytes = size_t{1} << 18;
constexpr int kSuccess = 0, kSystemError = 2, kInvalidArgument = 4, kInvalidUsage = 5, kInProgress = 7;
constexpr int kFloat32 = 7, kSum = 0;
enum class Kind : uint32_t { all_reduce = 1, all_gather, broadcast };

struct Mailbox {
  std::atomic<uint64_t> num_posted, num_taken;  // chunks
  std::atomic<uint32_t> attached;
  uint32_t kind, root;
  uint64_t bytes;  // of the whole collective
  alignas(64) uint8_t data[kChunkBytes];
};
struct Region {
  std::atomic<uint32_t> world_size;
  std::atomic<uint32_t> num_open;  // the last one to have it open removes the name
  Mailbox boxes[kMaxRanks];
};
struct Id {
  char internal[128];
};
struct Config {
  size_t size;
  unsigned magic, version;
  int blocking;
};
struct Call {
  Kind kind;
  int root;
  const uint8_t* send;
  uint8_t* receive;
  size_t bytes;  // of each rank
};

using Enqueue = int (*)(void* stream, int (*work)(void*), void* context);

size_t bytes_of(int type) { return type <= 1 ? 1 : type == 6 || type == 9 ? 2 : type <= 3 || type == kFloat32 ? 4 : 8; }

void log_call(const char* name) {
  const char* const path = std::getenv("NDS_STAND_IN_LOG");
  if (path == nullptr) return;
  if (FILE* const file = std::fopen(path, "a")) {
    std::fprintf(file, "%s\n", name);
    std::fclose(file);
  }
}

}  // namespace

struct ncclComm {
  Region* region = nullptr;
  int rank = 0, world_size = 0;
  uint64_t num_chunks = 0;  // posted by this rank
  std::atomic<int> error{kSuccess};
  std::atomic<bool> aborted{false}, has_settled{false};
  std::string name, last_error;

  bool is_complete() const {
    for (int r = 0; r < world_size; r++) {
      if (region->boxes[r].attached.load() == 0) return false;
    }
    return true;
  }
};

namespace {

// A collective in a stream, resumed until it is done. A graph runs it again.
struct Operation {
  ncclComm* comm;
  const Call call;
  size_t offset = 0;
  bool has_posted = false;

  bool all(std::atomic<uint64_t> Mailbox::* counter, uint64_t count) const {
    for (int r = 0; r < comm->world_size; r++) {
      if ((comm->region->boxes[r].*counter).load() < count) return false;
    }
    return true;
  }

  bool advance() {
    Mailbox& mine = comm->region->boxes[comm->rank];
    do {
      if (comm->aborted || comm->error != kSuccess) break;
      const size_t bytes = std::min(kChunkBytes, call.bytes - offset);
      if (!has_posted) {
        if (!all(&Mailbox::num_taken, comm->num_chunks)) return false;
        mine.kind = static_cast<uint32_t>(call.kind);
        mine.root = static_cast<uint32_t>(call.root);
        mine.bytes = call.bytes;
        std::memcpy(mine.data, call.send + offset, bytes);
        mine.num_posted = ++comm->num_chunks;
        has_posted = true;
      }
      if (!all(&Mailbox::num_posted, comm->num_chunks)) return false;
      for (int r = 0; r < comm->world_size; r++) {
        const Mailbox& box = comm->region->boxes[r];
        if (box.kind == mine.kind && box.root == mine.root && box.bytes == mine.bytes) continue;
        comm->last_error = "ranks " + std::to_string(comm->rank) + " and " + std::to_string(r) + " differ";
        comm->error = kInvalidUsage;
      }
      if (comm->error == kSuccess) take(bytes);
      mine.num_taken = comm->num_chunks;
      offset += bytes;
      has_posted = false;
    } while (offset < call.bytes);
    offset = 0;
    return true;
  }

  void take(size_t bytes) const {
    const Mailbox* const boxes = comm->region->boxes;
    if (call.kind == Kind::broadcast) std::memcpy(call.receive + offset, boxes[call.root].data, bytes);
    for (int r = 0; r < comm->world_size && call.kind == Kind::all_gather; r++)
      std::memcpy(call.receive + static_cast<size_t>(r) * call.bytes + offset, boxes[r].data, bytes);
    if (call.kind != Kind::all_reduce) return;
    for (size_t at = 0; at < bytes; at += 4) {
      float sum = 0;
      // Another order than the rank's own, as a ring would have.
      for (int r = comm->world_size - 1; r >= 0; r--) {
        float value;
        std::memcpy(&value, boxes[r].data + at, 4);
        sum += value;
      }
      std::memcpy(call.receive + offset + at, &sum, 4);
    }
  }
};

int enqueue(ncclComm* comm, void* stream, const char* name, const Call& call) {
  if (comm == nullptr || comm->aborted || !comm->has_settled) return kInvalidUsage;
  static const Enqueue to_stream = [] {
    void* const backend = dlopen(std::getenv("NDS_CUDA_LIBRARY"), RTLD_NOW | RTLD_NOLOAD);
    return backend == nullptr ? nullptr : reinterpret_cast<Enqueue>(dlsym(backend, "nds_simt_enqueue"));
  }();
  if (to_stream == nullptr) return kSystemError;
  log_call(name);
  // Kept: a graph may run it at any time.
  auto* const operation = new Operation{comm, call};
  const auto work = [](void* context) { return static_cast<Operation*>(context)->advance() ? 1 : 0; };
  return to_stream(stream, work, operation) == 0 ? kSuccess : kSystemError;
}

}  // namespace

EXPORT int ncclGetVersion(int* version) {
  *version = 99999;
  return kSuccess;
}
EXPORT const char* ncclGetErrorString(int status) {
  switch (status) {
    case kSuccess:
      return "no error";
    case kSystemError:
      return "unhandled system error";
    case kInvalidArgument:
      return "invalid argument";
    case kInvalidUsage:
      return "invalid usage";
    default:
      return "NCCL operation in progress";
  }
}
EXPORT const char* ncclGetLastError(ncclComm* comm) { return comm == nullptr ? "" : comm->last_error.c_str(); }

EXPORT int ncclGetUniqueId(Id* id) {
  std::random_device random;
  *id = {};
  std::snprintf(id->internal, sizeof(id->internal), "/nds-nccl-%08x%08x", random(), random());
  return kSuccess;
}

EXPORT int ncclCommInitRankConfig(ncclComm** made, int world_size, Id id, int rank, const Config* config) {
  if (world_size > kMaxRanks || rank < 0 || rank >= world_size || id.internal[0] != '/') return kInvalidArgument;
  if (config == nullptr || config->magic != 0xcafebeef || config->size < 20 || config->blocking != 0)
    return kInvalidArgument;
  const int file = shm_open(id.internal, O_RDWR | O_CREAT, 0600);
  if (file < 0 || ftruncate(file, sizeof(Region)) != 0) return kSystemError;
  void* const memory = mmap(nullptr, sizeof(Region), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) return kSystemError;
  auto* const comm = new ncclComm;
  comm->region = static_cast<Region*>(memory);
  comm->rank = rank;
  comm->world_size = world_size;
  comm->name = id.internal;
  if (comm->region->boxes[rank].attached.exchange(1) != 0) comm->error = kInvalidUsage;  // two processes of one rank
  // The name has no use once all have it open, and nobody is left to remove it when ranks are killed.
  if (comm->region->num_open.fetch_add(1) + 1 == static_cast<uint32_t>(world_size)) shm_unlink(comm->name.c_str());
  *made = comm;
  return kInProgress;
}

EXPORT int ncclCommGetAsyncError(ncclComm* comm, int* status) {
  if (!comm->has_settled && comm->is_complete()) comm->has_settled = true;
  *status = comm->error != kSuccess ? comm->error.load() : comm->has_settled ? kSuccess : kInProgress;
  return kSuccess;
}

EXPORT int ncclAllReduce(const void* send, void* receive, size_t count, int type, int op, ncclComm* comm,
                         void* stream) {
  if (type != kFloat32 || op != kSum) return kInvalidArgument;
  return enqueue(comm, stream, "all-reduce",
                 {Kind::all_reduce, 0, static_cast<const uint8_t*>(send), static_cast<uint8_t*>(receive), count * 4});
}
EXPORT int ncclAllGather(const void* send, void* receive, size_t count, int type, ncclComm* comm, void* stream) {
  return enqueue(
      comm, stream, "all-gather",
      {Kind::all_gather, 0, static_cast<const uint8_t*>(send), static_cast<uint8_t*>(receive), count * bytes_of(type)});
}
EXPORT int ncclBroadcast(const void* send, void* receive, size_t count, int type, int root, ncclComm* comm,
                         void* stream) {
  return enqueue(comm, stream, "broadcast",
                 {Kind::broadcast, root, static_cast<const uint8_t*>(send), static_cast<uint8_t*>(receive),
                  count * bytes_of(type)});
}
EXPORT int ncclGroupStart() { return kSuccess; }
EXPORT int ncclGroupEnd() { return kSuccess; }

// Work that waits gives up; the communicator stays, since queued work may still look at it.
EXPORT int ncclCommAbort(ncclComm* comm) {
  comm->aborted = true;
  shm_unlink(comm->name.c_str());
  return kSuccess;
}
