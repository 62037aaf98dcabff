// Whether all ranks did the same in a step.
#pragma once
#include <cstdint>

#include "comm/communicator.h"

namespace nds::comm {

// One all-gather of two fingerprints at the end of a step; nothing with one rank.
// @throws Error ERR_MISMATCH on every rank, naming the step, what differs and which ranks have what.
void check_agreement(Communicator& comm, int64_t step, uint64_t plan_hash, uint64_t output_hash);

}  // namespace nds::comm
