// Reading and writing elements of stored types.
#pragma once
#include "core/dtype.h"
#include "cuda/device.h"

namespace nds::cuda {

__device__ inline float load_element(const void* base, int64_t index, DType dtype) {
  if (dtype == DType::f32) return static_cast<const float*>(base)[index];
  if (dtype == DType::bf16) return __bfloat162float(static_cast<const __nv_bfloat16*>(base)[index]);
  return __half2float(static_cast<const __half*>(base)[index]);
}

// f32 or bf16.
__device__ inline void store_activation(void* base, int64_t index, float value, DType dtype) {
  if (dtype == DType::f32) {
    static_cast<float*>(base)[index] = value;
  } else {
    static_cast<__nv_bfloat16*>(base)[index] = __float2bfloat16(value);
  }
}

}  // namespace nds::cuda
