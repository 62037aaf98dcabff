// silu(gate) * up, with silu(x) = x / (1 + exp(-x)).
#pragma once
#include <cstdint>

#include "cpu/kernels/activation.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Columns [column, column + width) of a row of activations, from as many of gate and up.
inline void silu_mul_columns(const float* gate, const float* up, int width, uint8_t* row, int64_t column, DType dtype) {
  for (int i = 0; i < width; i += 16) {
    const int n = lanes(width, i);
    const F32x16 x = load_n(gate + i, n);
    const F32x16 silu = x / (set1(1.0f) + exp(zero() - x));
    store_activation(row, column + i, silu * load_n(up + i, n), n, dtype);
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
