// When the operators of a step ran on the device, by events in its stream.
#include "cuda/op_times.h"

#include <algorithm>

#include "core/steady_clock.h"
#include "cuda/exchange.h"

namespace nds::cuda {

OpTimes::OpTimes() { check(cudaEventCreate(&origin_), "making an event"); }

OpTimes::~OpTimes() {
  cudaEventDestroy(origin_);
  for (const cudaEvent_t event : events_) cudaEventDestroy(event);
}

void OpTimes::begin_step(cudaStream_t stream) {
  ops_.clear();
  // Taken before the event, not after it: a time of the device is at most early, so that no operator ends after its
  // step.
  origin_seconds_ = steady_seconds();
  check(cudaEventRecord(origin_, stream), "timing a step");
  wait_for(stream, nullptr);
}

void OpTimes::mark(int op, cudaStream_t stream) {
  if (ops_.size() == events_.size()) check(cudaEventCreate(&events_.emplace_back(nullptr)), "making an event");
  check(cudaEventRecord(events_[ops_.size()], stream), "timing an operator");
  ops_.push_back(op);
}

void OpTimes::read(StepResult& result) const {
  const double now = steady_seconds();
  double start = 0;
  for (size_t i = 0; i < ops_.size(); i++) {
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, origin_, events_[i]), "reading the time of an operator");
    // Rounding may lift a time past `now`.
    const double end = std::min(now, origin_seconds_ + static_cast<double>(milliseconds) / 1000);
    if (ops_[i] != kNoOp) result.trace.push_back({static_cast<double>(ops_[i]), start, end, 0});
    start = end;
  }
}

}  // namespace nds::cuda
