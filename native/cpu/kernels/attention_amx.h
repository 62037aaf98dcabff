// The two products of attention over one run of 32 keys by tiles of AMX, for up to 32 query rows in B blocks of 16. A
// row's sums are its own: 32 dimensions of a score, or the 32 keys of an output, are one sum of amx_multiply_bf16.
#pragma once
#include <cstdint>
#include <cstring>

#include "cpu/kernels/amx_block.h"
#include "cpu/kernels/attention_tile.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Bytes of a query row: bf16, zeros up to a multiple of 32 dimensions.
constexpr int64_t amx_query_bytes(int head_dim) { return (int64_t{head_dim} + 31) / 32 * 64; }

// scores [rows][32] = q [rows] of amx_query_bytes times the 32 keys of a run.
template <int B>
void amx_score_rows(const uint8_t* k_panel, const uint8_t* q, int head_dim, float* scores) {
  const int64_t q_bytes = amx_query_bytes(head_dim);
  const int num_steps = head_dim / kAmxStep, num_left = head_dim % kAmxStep;
  amx_zero_sums<B>();
  for (int step = 0; step < num_steps; step++) {
    amx_step<AmxBf16, B>(k_panel + step * kAmxStepBytes, q + step * kAmxStep * 2, q_bytes);
  }
  if (num_left > 0) {
    // What follows are values.
    alignas(64) uint8_t padded[kAmxStepBytes] = {};
    std::memcpy(padded, k_panel + num_steps * kAmxStepBytes, static_cast<size_t>(num_left) * 64);
    amx_step<AmxBf16, B>(padded, q + num_steps * kAmxStep * 2, q_bytes);
  }
  amx_store_sums<B>(scores, kRun * 4);
}

// The sums of columns d and on of `out` += the product of the probabilities in tiles kAmxA and on with the values.
template <int B>
inline void amx_add_columns(const uint8_t* values, int64_t row_bytes, float* out, int64_t stride, float* to,
                            int64_t to_stride) {
  amx_load<0>(out, stride * 4);
  if constexpr (B == 2) amx_load<2>(out + kAmxRows * stride, stride * 4);
  amx_load<kAmxB>(values, row_bytes);
  amx_multiply_bf16<0, kAmxA, kAmxB>();
  if constexpr (B == 2) amx_multiply_bf16<2, kAmxA + 1, kAmxB>();
  amx_store<0>(to, to_stride * 4);
  if constexpr (B == 2) amx_store<2>(to + kAmxRows * to_stride, to_stride * 4);
}

// out[r] = out[r] * factors[r] + p[r] times the 32 values of a run, for the active of `rows` rows. p: rows of 32
// probabilities, 128 bytes apart. width: a multiple of 16.
template <int B>
void amx_add_values(const uint8_t* v_panel, int width, const uint8_t* p, const OutRows& out, int rows) {
  const bool all_active = out.active == (rows == 32 ? ~0u : (1u << rows) - 1);
  for (int r = 0; r < rows; r++) {
    if ((out.active >> r & 1) == 0 || out.factors[r] == 1) continue;
    const F32x16 factor = set1(out.factors[r]);
    float* const row = out.base + r * out.stride;
    for (int d = 0; d < width; d += 16) store(row + d, load(row + d) * factor);
  }
  amx_load<kAmxA>(p, kRun * 4);
  if constexpr (B == 2) amx_load<kAmxA + 1>(p + kAmxRows * kRun * 4, kRun * 4);
  const int64_t row_bytes = int64_t{width} * 4;
  for (int d = 0; d < width; d += 16) {
    if (all_active) {
      amx_add_columns<B>(v_panel + d * 4, row_bytes, out.base + d, out.stride, out.base + d, out.stride);
    } else {
      alignas(64) float sums[2 * kAmxRows][16];
      amx_add_columns<B>(v_panel + d * 4, row_bytes, out.base + d, out.stride, sums[0], 16);
      for (int r = 0; r < rows; r++) {
        if ((out.active >> r & 1) != 0) store(out.base + r * out.stride + d, load(sums[r]));
      }
    }
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
