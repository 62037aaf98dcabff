// Reports a fault from a kernel: the first one is kept.
#pragma once
#include "cuda/step.h"

namespace nds::cuda {

__device__ inline void report_fault(unsigned long long* fault, StepFault kind, int seq) {
  atomicCAS(fault, 0ull, static_cast<unsigned long long>(seq) << 32 | static_cast<unsigned long long>(kind));
}

}  // namespace nds::cuda
