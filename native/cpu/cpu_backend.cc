// A rank on the CPU: its kernels and threads, and a model on them.
#include <memory>
#include <utility>

#include "core/backend.h"
#include "cpu/cpu_model.h"
#include "cpu/isa.h"
#include "step/host_backend.h"

namespace nds {

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options) {
  const cpu::Kernels& kernels = cpu::selected_isa();
  // Ranks of one process wait for each other inside a run, so they cannot take turns.
  const auto pool = options.world_size > 1
                        ? std::make_shared<cpu::ThreadPool>(options.num_threads, options.processors, options.crowded)
                        : cpu::ThreadPool::shared(options.num_threads, options.processors, options.crowded);
  return std::make_unique<HostBackend>(
      options, [&kernels, pool, on_loaded = options.on_loaded, on_begun = options.on_begun](
                   ProgramSpec program, comm::Communicator& comm, const OpTrace& trace) {
        return std::make_unique<cpu::CpuModel>(std::move(program), kernels, *pool, comm, trace, on_loaded, on_begun);
      });
}

}  // namespace nds
