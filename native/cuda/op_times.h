// When the operators of a step ran on the device, by events in its stream.
#pragma once
#include <vector>

#include "core/plan/step_result.h"
#include "cuda/check.h"

namespace nds::cuda {

// Of one step in flight at a time.
class OpTimes {
 public:
  OpTimes();
  ~OpTimes();
  OpTimes(const OpTimes&) = delete;
  OpTimes& operator=(const OpTimes&) = delete;

  // A step begins. Waits for the stream, which ties the device's clock to the host's within the time of a launch.
  void begin_step(cudaStream_t stream);
  // The operators of a pass begin here.
  void begin_pass(cudaStream_t stream) { mark(kNoOp, stream); }
  // Operator `op` of the trace ends here, and the next begins.
  void end_op(int op, cudaStream_t stream) { mark(op, stream); }
  // Adds the step's operators to its trace, once the device is done with it.
  void read(StepResult& result) const;

 private:
  static constexpr int kNoOp = -1;
  void mark(int op, cudaStream_t stream);

  cudaEvent_t origin_ = nullptr;
  double origin_seconds_ = 0;
  std::vector<cudaEvent_t> events_;
  std::vector<int> ops_;  // [number of marks of the step] what ended at the event of that index
};

}  // namespace nds::cuda
