// Writes rows of activations, the inputs of matrix products: fp32 or bf16, zero from the width up to ld.
#pragma once
#include <cstdint>
#include <cstring>

#include "core/dtype.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

inline uint8_t* activation_row(void* base, int64_t ld, int64_t row, DType dtype) {
  return static_cast<uint8_t*>(base) + row * ld * (dtype == DType::bf16 ? 2 : 4);
}

// Stores the first n (1 … 16) lanes of value from `column` on.
inline void store_activation(uint8_t* row, int64_t column, F32x16 value, int n, DType dtype) {
  if (dtype == DType::bf16) {
    store_bf16_n(reinterpret_cast<uint16_t*>(row) + column, value, n);
  } else {
    store_n(reinterpret_cast<float*>(row) + column, value, n);
  }
}

inline void zero_padding(uint8_t* row, int64_t width, int64_t ld, DType dtype) {
  const int64_t size = dtype == DType::bf16 ? 2 : 4;
  std::memset(row + width * size, 0, static_cast<size_t>((ld - width) * size));
}

inline int lanes(int64_t width, int64_t column) { return width - column < 16 ? static_cast<int>(width - column) : 16; }

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
