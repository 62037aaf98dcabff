// The one place that chooses a gang's communicator.
#pragma once
#include <memory>

#include "comm/communicator.h"
#include "core/backend.h"

namespace nds::comm {

// Local with one rank, else over shared memory. @throws Error as make_shm.
std::unique_ptr<Communicator> make_communicator(const BackendOptions& options);

}  // namespace nds::comm
