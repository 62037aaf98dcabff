// When the operators of a step ran on the first thread. Nothing is measured where tracing is off.
#pragma once
#include <vector>

namespace nds {

// One operator of the program by its index, or kAgreement. Laid out as section 8 of protocol/step-result.ts.
struct TraceEvent {
  double op;
  double start_seconds, end_seconds;
  double wait_seconds;  // of those, waiting for other ranks
};

// The exchange of fingerprints after the last operator.
constexpr int kAgreement = -1;

using StepTrace = std::vector<TraceEvent>;

}  // namespace nds
