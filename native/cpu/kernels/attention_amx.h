// The two products of attention over one run of 32 keys by tiles of AMX, for up to 32 query rows in B blocks of 16. A
// row's sums are its own: 32 dimensions of a score, or the 32 keys of an output, are one sum of amx_multiply_bf16.
#pragma once
#include <cstdint>
#include <cstring>

#include "cpu/kernels/amx_block.h"
#include "cpu/kernels/attention_softmax.h"
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

// The AMX half of a tile: a copy of its queries, and its steps.
class AmxTile {
 public:
  uint8_t* queries = nullptr;  // [kTileRows] of amx_query_bytes

  // q: the queries of the rows.
  void set_up(const uint8_t* const* q, int num_rows, int head_dim) {
    state_.set(num_rows);
    const int64_t row_bytes = amx_query_bytes(head_dim);
    std::memset(queries, 0, static_cast<size_t>(num_rows * row_bytes));
    for (int r = 0; r < num_rows; r++) {
      std::memcpy(queries + r * row_bytes, q[r], static_cast<size_t>(head_dim) * 2);
    }
  }

  // out: [rows][kv.padded_head_dim].
  void visit_run(const Visit& visit, SoftmaxRows& rows, float* out, const KvView& kv) const {
    if (rows.count() <= kAmxRows) {
      visit_blocks<1>(visit, rows, out, kv);
    } else {
      visit_blocks<2>(visit, rows, out, kv);
    }
  }

 private:
  // The tile multiplies the next run's keys while the scores of this one become probabilities.
  template <int B>
  void visit_blocks(const Visit& visit, SoftmaxRows& rows, float* out, const KvView& kv) const {
    const int num_rows = rows.count();
    if (rows.active(0, num_rows, visit.next) != 0) {
      for (int64_t i = 0; i < kv.panel_bytes; i += 64) prefetch_l2(visit.keys_ahead + i);
      amx_score_rows<B>(visit.keys, queries, kv.head_dim, rows.scores(visit.next, 0));
    }
    const uint32_t active = rows.active(0, num_rows, visit.now);
    if (active == 0) return;
    for (int row = 0; row < num_rows; row += kMaxTileRows) softmax_group(rows, row, active >> row, visit.now);
    for (int64_t i = 0; i < kv.panel_bytes; i += 64) prefetch_l2(visit.values_ahead + i);
    amx_add_values<B>(visit.values, kv.padded_head_dim, reinterpret_cast<const uint8_t*>(rows.scores(visit.now, 0)),
                      {out, kv.padded_head_dim, rows.factors(0), active}, num_rows);
  }

  // Of up to kMaxTileRows rows from first_row on.
  static void softmax_group(SoftmaxRows& rows, int first_row, uint32_t active, const Run& run) {
    switch (rows.count() - first_row) {
      case 1:
        return rows.softmax<1>(first_row, active, run);
      case 2:
        return rows.softmax<2>(first_row, active, run);
      case 3:
        return rows.softmax<3>(first_row, active, run);
      case 4:
        return rows.softmax<4>(first_row, active, run);
      case 5:
        return rows.softmax<5>(first_row, active, run);
      default:
        return rows.softmax<6>(first_row, active, run);
    }
  }

  AmxState state_;
};

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
