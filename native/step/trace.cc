// Times a step's operators and counts the bytes that its ranks exchange.
#include "step/trace.h"

#include "comm/agreement.h"
#include "core/steady_clock.h"

namespace nds {

double trace_event(int op, double start_seconds, comm::Communicator& comm, StepResult& result) {
  result.trace.push_back({static_cast<double>(op), start_seconds, start_seconds, 0});
  extend_last_event(comm, result);
  return result.trace.back().end_seconds;
}

void extend_last_event(comm::Communicator& comm, StepResult& result) {
  if (result.trace.empty()) return;
  const double waited = result.wait_seconds;
  comm::count_exchange(comm, result);
  TraceEvent& last = result.trace.back();
  last.wait_seconds += result.wait_seconds - waited;
  last.end_seconds = steady_seconds();
}

}  // namespace nds
