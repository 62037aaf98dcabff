// Times at which the operators of a step ran on thread 0. Nothing is measured unless tracing is on.
#pragma once
#include <vector>

namespace nds {

// One operator: `op` is its index in the program, or kAgreement. Laid out as section 8 of protocol/step-result.ts.
struct TraceEvent {
  double op;
  double start_seconds, end_seconds;
  double wait_seconds;  // part of that time spent waiting for other ranks
};

// The exchange of fingerprints after the last operator.
constexpr int kAgreement = -1;

using StepTrace = std::vector<TraceEvent>;

}  // namespace nds
