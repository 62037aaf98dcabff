// The one place that chooses a gang's communicator.
#pragma once
#include <memory>

#include "comm/communicator.h"
#include "comm/leaders.h"
#include "core/backend.h"

namespace nds::comm {

// Local with one rank, over shared memory on one host, else over shared memory on each host and options.leaders between
// them. @throws Error as make_shm; ERR_INTERNAL unless a host's first rank, and no other, has leaders.
std::unique_ptr<Communicator> make_communicator(const BackendOptions& options);

}  // namespace nds::comm
