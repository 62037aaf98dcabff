// Translates CUDA error codes to nds::Error.
#pragma once
#include <string>

#include "core/error.h"
#include "cuda/device.h"

namespace nds::cuda {

// @throws Error ERR_CUDA with CUDA's text and what was tried.
inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw Error("ERR_CUDA", std::string("Expected ") + what + " to succeed but received: " + cudaGetErrorString(error));
}

}  // namespace nds::cuda
