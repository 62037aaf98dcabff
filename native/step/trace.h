// Timing a step's operators, and what its ranks exchanged meanwhile.
#pragma once
#include "comm/communicator.h"
#include "core/plan/step_result.h"

namespace nds {

// Notes an operator that ends now; returns when that is.
double trace_event(int op, double start_seconds, comm::Communicator& comm, StepResult& result);
// The operator noted last, if there is one, ends now and not before.
void extend_last_event(comm::Communicator& comm, StepResult& result);

}  // namespace nds
