// Collectives by NCCL: a non-blocking communicator, polled, so that nothing waits for a rank without a deadline.
#include "cuda/nccl.h"

#include <dlfcn.h>
#include <sched.h>

#include <algorithm>

#include "core/error.h"
#include "core/steady_clock.h"

namespace nds::cuda {
namespace {

// nccl.h of 2.14 and later.
constexpr int kSuccess = 0, kInProgress = 7;
constexpr int kUint8 = 1, kFloat32 = 7, kSum = 0;
// The start of ncclConfig_t as of 2.14: a library reads as much as `size` and `version` say.
struct Config {
  size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  unsigned version = 21400;
  int blocking = 0;
};

struct Functions {
  int (*get_unique_id)(NcclId*);
  int (*comm_init)(void** comm, int world_size, NcclId, int rank, Config*);
  int (*get_async_error)(void* comm, int* status);
  int (*all_gather)(const void* from, void* to, size_t count, int type, void* comm, cudaStream_t);
  int (*all_reduce)(const void* from, void* to, size_t count, int type, int op, void* comm, cudaStream_t);
  int (*broadcast)(const void* from, void* to, size_t count, int type, int root, void* comm, cudaStream_t);
  int (*group_start)();
  int (*group_end)();
  int (*comm_abort)(void* comm);
  const char* (*error_string)(int);
  const char* (*last_error)(void* comm);
};

template <typename Function>
void find(const Library& library, const char* name, Function& function) {
  function = library.handle == nullptr ? nullptr : reinterpret_cast<Function>(dlsym(library.handle, name));
  if (function == nullptr)
    throw Error("ERR_CUDA", "Expected NCCL 2.14 or newer with " + std::string(name) + " but received " + library.path);
}

Functions find_functions(const Library& library) {
  Functions f{};
  find(library, "ncclGetUniqueId", f.get_unique_id);
  find(library, "ncclCommInitRankConfig", f.comm_init);
  find(library, "ncclCommGetAsyncError", f.get_async_error);
  find(library, "ncclAllGather", f.all_gather);
  find(library, "ncclAllReduce", f.all_reduce);
  find(library, "ncclBroadcast", f.broadcast);
  find(library, "ncclGroupStart", f.group_start);
  find(library, "ncclGroupEnd", f.group_end);
  find(library, "ncclCommAbort", f.comm_abort);
  find(library, "ncclGetErrorString", f.error_string);
  find(library, "ncclGetLastError", f.last_error);
  return f;
}

[[noreturn]] void fail(const Functions& f, int status, void* comm, const char* what) {
  const char* const detail = comm == nullptr ? nullptr : f.last_error(comm);
  throw Error("ERR_CUDA", std::string("Expected NCCL to succeed with ") + what +
                              " but received: " + f.error_string(status) +
                              (detail == nullptr || *detail == 0 ? "" : ", ") + (detail == nullptr ? "" : detail));
}

class NcclExchange final : public Exchange {
 public:
  NcclExchange(const Functions& f, const NcclId& id, const BackendOptions& options, const std::atomic<bool>& closed)
      : f_(f), options_(options), closed_(closed) {
    Config config;
    const int status = f_.comm_init(&comm_, options.world_size, id, options.rank, &config);
    if (status != kSuccess && status != kInProgress) fail(f_, status, nullptr, "joining ranks");
    try {
      settle("joining ranks", options.startup_timeout_ms);
    } catch (...) {
      abort();
      throw;
    }
  }
  ~NcclExchange() override { abort(); }

  int rank() const override { return options_.rank; }
  int world_size() const override { return options_.world_size; }
  bool is_asynchronous() const override { return true; }
  bool has_all_reduce() const override { return true; }

  void all_gather(const void* local, const std::vector<int64_t>& counts, void* out, cudaStream_t stream) override {
    count({.bytes = counts[rank()]});
    if (std::equal(counts.begin() + 1, counts.end(), counts.begin())) {
      if (counts[0] == 0) return;
      return call(f_.all_gather(local, out, static_cast<size_t>(counts[0]), kUint8, comm_, stream), "an all-gather");
    }
    check(f_.group_start(), "a group");
    auto* to = static_cast<uint8_t*>(out);
    for (int r = 0; r < world_size(); to += counts[r], r++) {
      if (counts[r] == 0) continue;
      // In a group the answer of each call is that of its end.
      f_.broadcast(r == rank() ? local : to, to, static_cast<size_t>(counts[r]), kUint8, r, comm_, stream);
    }
    call(f_.group_end(), "a group of broadcasts");
  }

  void all_reduce(float* data, int64_t num, cudaStream_t stream) override {
    count({.bytes = num * 4, .all_reduce_bytes = num * 4});
    call(f_.all_reduce(data, data, static_cast<size_t>(num), kFloat32, kSum, comm_, stream), "an all-reduce");
  }

  void check_health() override {
    int status = kSuccess;
    check(f_.get_async_error(comm_, &status), "asking for errors");
    if (status != kInProgress) check(status, "a collective");
  }

  void abort() override {
    if (comm_ != nullptr) f_.comm_abort(comm_);
    comm_ = nullptr;
  }

 private:
  void check(int status, const char* what) const {
    if (status != kSuccess) fail(f_, status, comm_, what);
  }

  // A call of a non-blocking communicator may go on in the background, such as the first, which makes connections. The
  // next call has to wait for its end.
  void call(int status, const char* what) {
    if (status == kInProgress) return settle(what, options_.step_timeout_ms);
    check(status, what);
  }

  void settle(const char* what, int64_t timeout_ms) {
    const double deadline = steady_seconds() + static_cast<double>(timeout_ms) / 1000;
    for (int status = kInProgress; status == kInProgress; sched_yield()) {
      check(f_.get_async_error(comm_, &status), what);
      if (status == kInProgress && closed_.load(std::memory_order_relaxed))
        throw Error("ERR_CLOSED", "Expected an open backend but it was closed");
      if (status == kInProgress && steady_seconds() > deadline)
        throw Error("ERR_STEP_TIMEOUT",
                    "Expected NCCL to finish " + std::string(what) + " within " + std::to_string(timeout_ms) + " ms");
      if (status != kInProgress) check(status, what);
    }
  }

  const Functions f_;
  const BackendOptions options_;
  const std::atomic<bool>& closed_;
  void* comm_ = nullptr;
};

}  // namespace

NcclId make_nccl_id(const Library& library) {
  const Functions f = find_functions(library);
  NcclId id;
  const int status = f.get_unique_id(&id);
  if (status != kSuccess) fail(f, status, nullptr, "making an id");
  return id;
}

std::unique_ptr<Exchange> join_nccl(const Library& library, const NcclId& id, const BackendOptions& options,
                                    const std::atomic<bool>& closed) {
  return std::make_unique<NcclExchange>(find_functions(library), id, options, closed);
}

}  // namespace nds::cuda
