// The exchange between hosts, which nds.node offers through its plain C interface.
#pragma once
#include <memory>

#include "comm/leaders.h"
#include "core/cuda_interface.h"

namespace nds::cuda {

// table: valid as long as the result and its sessions.
std::shared_ptr<comm::Leaders> remote_leaders(const NdsLeaders& table);

}  // namespace nds::cuda
