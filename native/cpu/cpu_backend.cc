// A rank on the CPU: its kernels and threads, and a model on them.
#include <memory>
#include <utility>

#include "core/backend.h"
#include "cpu/cpu_model.h"
#include "cpu/isa.h"
#include "step/host_backend.h"

namespace nds {
namespace cpu {
namespace {

// This rank's share of the cores if this host's ranks have exactly one thread per core; else none, and the system
// places threads.
std::vector<int> cores_to_pin([[maybe_unused]] const BackendOptions& options) {
#ifdef __linux__
  const std::vector<int> allowed = allowed_cores();
  if (static_cast<int64_t>(options.num_threads) * options.local_world_size != static_cast<int64_t>(allowed.size()))
    return {};
  const auto first = allowed.begin() + static_cast<int64_t>(options.local_rank) * options.num_threads;
  return {first, first + options.num_threads};
#else
  return {};
#endif
}

bool is_crowded(const BackendOptions& options) {
  return static_cast<int64_t>(options.num_threads) * options.local_world_size >
         static_cast<int64_t>(allowed_cores().size());
}

}  // namespace
}  // namespace cpu

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options) {
  const cpu::Kernels& kernels = cpu::selected_isa();
  const std::vector<int> cores = cpu::cores_to_pin(options);
  const bool crowded = cpu::is_crowded(options);
  // Ranks of one process wait for each other inside a run, so they cannot take turns.
  const auto pool = options.world_size > 1 ? std::make_shared<cpu::ThreadPool>(options.num_threads, cores, crowded)
                                           : cpu::ThreadPool::shared(options.num_threads, cores, crowded);
  return std::make_unique<HostBackend>(
      options, [&kernels, pool, on_loaded = options.on_loaded](ProgramSpec program, comm::Communicator& comm,
                                                               const OpTrace& trace) {
        return std::make_unique<cpu::CpuModel>(std::move(program), kernels, *pool, comm, trace, on_loaded);
      });
}

}  // namespace nds
