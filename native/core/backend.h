// The interface that runs a program; one implementation per kind of device.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/plan/step_result.h"
#include "core/program/program.h"
#include "core/progress.h"

namespace nds {

namespace comm {
class Leaders;
}

struct LoadReport {
  int64_t weight_bytes = 0;
  int64_t kv_bytes = 0;
  int64_t scratch_bytes = 0;
  int64_t file_bytes = 0;   // of weight_bytes: read from files of packed matrices
  std::string notice = {};  // why such a file was not read or written

  LoadReport& operator+=(const LoadReport& other) {
    weight_bytes += other.weight_bytes;
    kv_bytes += other.kv_bytes;
    scratch_bytes += other.scratch_bytes;
    file_bytes += other.file_bytes;
    notice += other.notice;
    return *this;
  }
};

// Called with each portion of weights, in bytes, that a load has packed or uploaded. From any thread, often.
using OnLoaded = std::function<void(int64_t num_bytes)>;
// Called by the executor's thread, perhaps several times in a step, once its first parts are open to other threads, or
// at its start if there are none: what this thread does then holds up no other. CPU only.
using OnBegun = std::function<void()>;

struct BackendOptions {
  int rank = 0;
  int world_size = 1;
  int shm_fd = -1;
  int local_rank = 0;  // among this host's ranks
  int local_world_size = 1;
  int num_nodes = 1;                       // hosts; each holds local_world_size consecutive ranks
  std::shared_ptr<comm::Leaders> leaders;  // on local rank 0 of several hosts: connections to the others' leaders
  int num_threads = 1;                     // CPU only
  std::vector<int> processors = {};        // processor of each thread; empty: the system places them
  bool crowded = true;                     // threads of this host's ranks outnumber what can run at once
  bool on_cuda = false;
  int device = 0;              // CUDA device index, modulo the number of devices
  bool deterministic = false;  // CUDA: one summation order, whatever the batch and the number of ranks
  int64_t startup_timeout_ms = 600000;
  int64_t step_timeout_ms = 60000;
  bool trace = false;
  Progress progress = {};  // must outlive the backend
  OnLoaded on_loaded = [](int64_t) {};
  OnBegun on_begun = [] {};
};

// One model on one rank. One thread, the rank's executor, calls all members except abort().
class Backend {
 public:
  virtual ~Backend() = default;
  // Maps, slices and packs the weights and allocates KV and scratch. @throws Error.
  virtual LoadReport load(LoadSpec spec) = 0;
  // Max steps between launch and collect.
  virtual int max_in_flight() const = 0;
  // Starts a step behind those in flight. The plan is in the form that view_plan takes; its bytes may be freed once
  // this returns. @throws Error; after ERR_PLAN nothing has run, after any other error the backend must not be used
  // again.
  virtual void launch(int64_t step, const int32_t* directory, int64_t directory_size, const uint8_t* bytes,
                      int64_t num_bytes) = 0;
  // Whether collect() would return at once.
  virtual bool is_done() = 0;
  // Result of the oldest step in flight; waits for it. @throws Error; then the backend must not be used again.
  virtual StepResult collect() = 0;
  // Any thread may call this: waiting collectives throw ERR_CLOSED.
  virtual void abort() = 0;
};

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options);
// @throws Error ERR_CUDA without a device.
std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options);

}  // namespace nds
