// The int8 KV cache: quantizes tokens when they are stored, expands runs to fp32 or bf16 panels for attention.
#pragma once
#include <cstdint>
#include <cstring>

#include "cpu/kernels/kv_panel.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Returns scale = max |x| / 127; values[i] = x[i] / scale to nearest, ties to even, in [-127, 127]. All zeros have
// scale 0. An infinity or NaN makes the scale NaN, which then spreads to each output that attends to the token.
inline float quantize(const float* x, int count, int8_t* values) {
  F32x16 most = zero(), not_finite = zero();
  for (int i = 0; i < count; i += 16) {
    const F32x16 value = load_n(x + i, count - i < 16 ? count - i : 16);
    most = max(most, max(value, zero() - value));
    not_finite = not_finite + value * zero();
  }
  const float scale = reduce_max(most) / 127.0f + reduce_add(not_finite);
  // Clamped, since |x| / scale exceeds 127 where the scale is a denormal that was rounded down.
  const F32x16 divisor = set1(scale > 0 ? scale : 1.0f), limit = set1(127.0f);
  for (int i = 0; i < count; i += 16) {
    const F32x16 value = load_n(x + i, count - i < 16 ? count - i : 16) / divisor;
    store_i8(values + i, round_to_i32(min(max(value, zero() - limit), limit)));
  }
  return scale;
}

// Scales of a run: [32] of K, [32] of V.
inline const float* int8_scales(const KvView& kv, const uint8_t* run) {
  return reinterpret_cast<const float*>(run + kv.panel_bytes * 2);
}

inline void store_int8_kv(const KvView& kv, int64_t slot, int head, KeyValue token) {
  alignas(64) int8_t values[kMaxHeadDim];
  uint8_t* run = kv_run(kv, slot, head);
  const int64_t lane = slot % kRun;
  float* scales = reinterpret_cast<float*>(run + kv.panel_bytes * 2);
  scales[lane] = quantize(token.k, kv.head_dim, values);
  for (int d = 0; d < kv.head_dim; d++) run[d * kRun + lane] = static_cast<uint8_t>(values[d]);
  scales[kRun + lane] = quantize(token.v, kv.head_dim, values);
  std::memcpy(run + kv.panel_bytes + lane * kv.padded_head_dim, values, static_cast<size_t>(kv.head_dim));
}

// Expands integers [num_rows][width] to a panel of fp32 (1 row per step) or of bf16 (2 rows per step, interleaved in 32
// bits), both exact. kRowsPerStep is kPerStep of attention_tile.h; width is a multiple of 16.
template <int kRowsPerStep>
void expand_int8(const uint8_t* integers, int num_rows, int width, uint8_t* panel) {
  const int8_t* from = reinterpret_cast<const int8_t*>(integers);
  const I32x16 upper = set1_i32(static_cast<int32_t>(0xffff0000u));
  for (int row = 0; row < num_rows; row += kRowsPerStep) {
    for (int column = 0; column < width; column += 16, panel += 64) {
      const int8_t* at = from + row * width + column;
      const I32x16 even = as_i32(to_f32(load_i8(at)));
      if (kRowsPerStep == 1) {
        store_i32(reinterpret_cast<int32_t*>(panel), even);
      } else {
        const I32x16 odd = as_i32(to_f32(load_i8(at + width)));
        store_i32(reinterpret_cast<int32_t*>(panel), shr<16>(even) | (odd & upper));
      }
    }
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
