// How a step ends between its ranks: whether they agree, and what they exchanged.
#pragma once
#include <cstdint>

#include "comm/communicator.h"
#include "core/plan/step_result.h"

namespace nds::comm {

// One all-gather of two fingerprints at the end of a step; no-op with one rank.
// @throws Error ERR_MISMATCH on every rank, naming the step, what differs and the fingerprint of each rank.
void check_agreement(Communicator& comm, int64_t step, uint64_t plan_hash, uint64_t output_hash);

// Adds the bytes that this rank exchanged and the seconds that it waited for others since the last call.
void count_exchange(Communicator& comm, StepResult& result);

}  // namespace nds::comm
