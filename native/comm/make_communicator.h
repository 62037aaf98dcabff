// The one place that chooses how the ranks of a gang talk.
#pragma once
#include <memory>

#include "comm/communicator.h"
#include "core/backend.h"

namespace nds::comm {

// @throws Error as make_shm.
std::unique_ptr<Communicator> make_communicator(const BackendOptions& options);

}  // namespace nds::comm
