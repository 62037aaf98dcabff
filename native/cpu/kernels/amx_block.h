// Products of blocks of rows with 32 columns by tiles of AMX, for linear and attention.
#pragma once
#include <cstdint>

#include "cpu/kernels/amx.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

constexpr int kAmxStep = 32;                       // k of a step of bf16
constexpr int kAmxStepBytes = kAmxStep / 2 * 128;  // of weights

template <int B>
inline void amx_zero_sums() {
  amx_zero<0>();
  amx_zero<1>();
  if constexpr (B == 2) {
    amx_zero<2>();
    amx_zero<3>();
  }
}

// Sums [rows][kPanel], rows ld floats apart.
template <int B>
inline void amx_store_sums(void* sums, int64_t row_bytes) {
  uint8_t* const out = static_cast<uint8_t*>(sums);
  amx_store<0>(out, row_bytes);
  amx_store<1>(out + 64, row_bytes);
  if constexpr (B == 2) {
    amx_store<2>(out + kAmxRows * row_bytes, row_bytes);
    amx_store<3>(out + kAmxRows * row_bytes + 64, row_bytes);
  }
}

// The kinds of products.
struct AmxBf16 {
  template <int kSums, int kA, int kB>
  static void multiply() {
    amx_multiply_bf16<kSums, kA, kB>();
  }
};
struct AmxInt8 {
  template <int kSums, int kA, int kB>
  static void multiply() {
    amx_multiply_int8<kSums, kA, kB>();
  }
};

// Adds one step, 64 bytes of each row, to the sums of B blocks of 16 rows. The products with a tile of columns follow
// each other, as a tile that stays costs less.
template <typename Products, int B>
inline void amx_step(const uint8_t* w, const uint8_t* x, int64_t ldx) {
  amx_load<kAmxA>(x, ldx);
  if constexpr (B == 2) amx_load<kAmxA + 1>(x + kAmxRows * ldx, ldx);
  amx_load<kAmxB>(w, 128);
  Products::template multiply<0, kAmxA, kAmxB>();
  if constexpr (B == 2) Products::template multiply<2, kAmxA + 1, kAmxB>();
  amx_load<kAmxB + 1>(w + 64, 128);
  Products::template multiply<1, kAmxA, kAmxB + 1>();
  if constexpr (B == 2) Products::template multiply<3, kAmxA + 1, kAmxB + 1>();
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
