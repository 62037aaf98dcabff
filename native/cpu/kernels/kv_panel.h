// Writes K and V of single tokens into the panels that attention reads; widens panels of bf16.
#pragma once
#include <cstdint>
#include <cstring>

#include "cpu/kernels/bf16_pair.h"
#include "cpu/kernels/simd.h"
#include "cpu/kv_view.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// K and V of one token and one KV head: [head_dim] each.
struct KeyValue {
  const float* k;
  const float* v;
};

// Whether panels hold bf16.
inline bool is_bf16(const KvView& kv) {
  return kv.kv_dtype == KvDtype::bf16 || (kv.kv_dtype == KvDtype::activation && kv.dtype == DType::bf16);
}

// Start of the run of 32 tokens that holds token `slot` (block * block_size + offset in the block) of a KV head.
inline uint8_t* kv_run(const KvView& kv, int64_t slot, int head) {
  const int64_t block = slot / kv.block_size, run = slot % kv.block_size / kRun;
  return kv.base + block * kv.block_stride + head * kv.tile_bytes + run * kv.run_bytes;
}

inline void store_f32_kv(const KvView& kv, int64_t slot, int head, KeyValue token) {
  float* k = reinterpret_cast<float*>(kv_run(kv, slot, head)) + slot % kRun;
  float* v = reinterpret_cast<float*>(kv_run(kv, slot, head) + kv.panel_bytes) + slot % kRun * kv.padded_head_dim;
  for (int d = 0; d < kv.head_dim; d++) k[d * kRun] = token.k[d];
  std::memcpy(v, token.v, static_cast<size_t>(kv.head_dim) * 4);
}

inline void store_bf16_kv(const KvView& kv, int64_t slot, int head, KeyValue token) {
  uint8_t* k = kv_run(kv, slot, head) + slot % kRun * 4;
  uint8_t* v =
      kv_run(kv, slot, head) + kv.panel_bytes + slot % kRun / 2 * (int64_t{kv.padded_head_dim} * 4) + slot % 2 * 2;
  for (int d = 0; d < kv.head_dim; d += 16) {
    const int n = kv.head_dim - d < 16 ? kv.head_dim - d : 16;
    uint16_t rounded_k[16], rounded_v[16];
    store_bf16(rounded_k, load_n(token.k + d, n));
    store_bf16(rounded_v, load_n(token.v + d, n));
    for (int i = 0; i < n; i += 2) std::memcpy(k + (d + i) / 2 * (kRun * 4), rounded_k + i, 4);
    for (int i = 0; i < n; i++) std::memcpy(v + (d + i) * 4, rounded_v + i, 2);
  }
}

// store_bf16_kv for an even slot and the next one, whose tokens share a row of the V panel.
inline void store_bf16_kv_pair(const KvView& kv, int64_t slot, int head, KeyValue even, KeyValue odd) {
  uint8_t* k = kv_run(kv, slot, head) + slot % kRun * 4;
  uint8_t* v = kv_run(kv, slot, head) + kv.panel_bytes + slot % kRun / 2 * (int64_t{kv.padded_head_dim} * 4);
  for (int d = 0; d < kv.head_dim; d += 16) {
    const int n = kv.head_dim - d < 16 ? kv.head_dim - d : 16;
    uint16_t rounded[2][16];
    store_bf16(rounded[0], load_n(even.k + d, n));
    store_bf16(rounded[1], load_n(odd.k + d, n));
    for (int i = 0; i < n; i += 2) {
      std::memcpy(k + (d + i) / 2 * (kRun * 4), rounded[0] + i, 4);
      std::memcpy(k + (d + i) / 2 * (kRun * 4) + 4, rounded[1] + i, 4);
    }
    const I32x16 values = round_bf16(load_n(even.v + d, n)) | shl<16>(round_bf16(load_n(odd.v + d, n)));
    // Also writes the padding of head_dim up to a multiple of 16, as zeros.
    store_i32(reinterpret_cast<int32_t*>(v + d * 4), values);
  }
}

// Widens a bf16 panel [num_rows / 2][width][2] to fp32 [num_rows][width]; width is a multiple of 16.
inline void expand_bf16(const uint8_t* pairs, int num_rows, int width, uint8_t* panel) {
  for (int row = 0; row < num_rows; row += 2, panel += int64_t{width} * 8) {
    for (int column = 0; column < width; column += 16, pairs += 64) {
      const I32x16 pair = load_i32(reinterpret_cast<const int32_t*>(pairs));
      float* even = reinterpret_cast<float*>(panel) + column;
      store(even, low_bf16(pair));
      store(even + width, high_bf16(pair));
    }
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
