// A row of quantized activations: for each group of a matrix, a header, then q by tiles of 32 k, zero past the last.
#pragma once
#include <cstdint>

#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

struct GroupHeader {
  float scale;         // of the activations, / 256, by which the scales of weights are multiplied
  int32_t correction;  // -offset * (sum of q), where weights are stored as q + offset
};

// Bytes of a tile.
constexpr int kInt8XTile = 32, kInt4XTile = 32;

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
