// A rank on the CPU: what it is made of.
#include "cpu/cpu_backend.h"

#include <utility>

#include "comm/make_communicator.h"
#include "cpu/isa.h"

namespace nds {

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options) {
  return std::make_unique<cpu::CpuBackend>(options);
}

namespace cpu {
namespace {

// This rank's share of the cores when the ranks of this host have a thread for each; else none, and the system places
// threads.
std::vector<int> cores_to_pin(const BackendOptions& options) {
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

CpuBackend::CpuBackend(const BackendOptions& options)
    : options_(options),
      kernels_(selected_isa()),
      pool_(options.num_threads, cores_to_pin(options), is_crowded(options)),
      comm_(comm::make_communicator(options)),
      alone_(comm::make_local()) {}

LoadReport CpuBackend::load(LoadSpec spec) {
  slots_.assign(spec.model.max_num_seqs, Slot{});
  const int num_ops = static_cast<int>(spec.model.ops.size());
  model_ = std::make_unique<CpuModel>(ModelPlace{options_.rank, options_.world_size, options_.trace, 0}, kernels_,
                                      pool_, *comm_, std::move(spec.model));
  LoadReport report = model_->report();
  greedy_draft_ = spec.greedy_draft;
  draft_rule_ = spec.draft_rule;
  if (spec.draft) {
    const ModelPlace place = spec.shards_draft ? ModelPlace{options_.rank, options_.world_size, options_.trace, num_ops}
                                               : ModelPlace{0, 1, options_.trace, num_ops};
    draft_ = std::make_unique<CpuModel>(place, kernels_, pool_, spec.shards_draft ? *comm_ : *alone_,
                                        std::move(*spec.draft));
    const LoadReport more = draft_->report();
    report.weight_bytes += more.weight_bytes;
    report.kv_bytes += more.kv_bytes;
    report.scratch_bytes += more.scratch_bytes;
  }
  // What the ranks waited for each other's loading is no part of the first step.
  comm_->take_stats();
  return report;
}

void CpuBackend::abort() { comm_->abort(); }

}  // namespace cpu
}  // namespace nds
