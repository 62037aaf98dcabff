// What runs a program: one implementation per kind of device.
#pragma once
#include <cstdint>
#include <memory>

#include "core/plan_view.h"
#include "core/program.h"
#include "core/step_result.h"

namespace nds {

struct LoadReport {
  int64_t weight_bytes = 0;
  int64_t kv_bytes = 0;
  int64_t scratch_bytes = 0;
};

struct BackendOptions {
  int rank = 0;
  int world_size = 1;
  int shm_fd = -1;
  int local_rank = 0;  // of this host's ranks
  int local_world_size = 1;
  int num_threads = 1;
  int64_t startup_timeout_ms = 600000;
  int64_t step_timeout_ms = 60000;
  bool trace = false;
};

// One model on one rank. All members but abort() are called by one thread, the rank's executor.
class Backend {
 public:
  virtual ~Backend() = default;
  // Maps, slices and packs the weights and allocates KV and scratch. @throws Error.
  virtual LoadReport load(LoadSpec spec) = 0;
  // Runs one step. @throws Error; after ERR_PLAN nothing has run, after any other error the backend must not be used
  // again.
  virtual StepResult run(const PlanView& plan) = 0;
  // From any thread: collectives that wait throw ERR_CLOSED.
  virtual void abort() = 0;
};

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options);

}  // namespace nds
