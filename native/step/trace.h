// Times a step's operators and counts the bytes that its ranks exchange.
#pragma once
#include "comm/communicator.h"
#include "core/plan/step_result.h"

namespace nds {

// Records an operator that ends now. Returns its end in steady seconds.
double trace_event(int op, double start_seconds, comm::Communicator& comm, StepResult& result);
// Moves the end of the last recorded operator, if any, to now.
void extend_last_event(comm::Communicator& comm, StepResult& result);

}  // namespace nds
