// The one place that chooses a gang's communicator.
#include "comm/make_communicator.h"

namespace nds::comm {

std::unique_ptr<Communicator> make_communicator(const BackendOptions& options) {
  if (options.world_size == 1) return make_local();
  return make_shm(
      {options.rank, options.world_size, options.shm_fd, options.step_timeout_ms, options.startup_timeout_ms});
}

}  // namespace nds::comm
