// One token's K and V written into the panels that attention reads.
#pragma once
#include <cstdint>

#include "core/kv_view.h"
#include "cpu/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Start of the run of 32 tokens that holds token `slot` (block * block_size + offset in the block) of a kv head.
inline uint8_t* kv_run(const KvView& kv, int64_t slot, int head) {
  const int64_t block = slot / kv.block_size, run = slot % kv.block_size / kRun;
  return kv.base + (block * kv.num_kv_heads + head) * kv.tile_bytes + run * kv.run_bytes;
}

// k, v: [head_dim] fp32.
inline void store_kv(const KvView& kv, int64_t slot, int head, const float* k, const float* v) {
  uint8_t* run = kv_run(kv, slot, head);
  uint8_t* v_panel = run + kv.run_bytes / 2;
  const int64_t token = slot % kRun;
  if (kv.dtype == DType::f32) {
    float* ks = reinterpret_cast<float*>(run);
    float* vs = reinterpret_cast<float*>(v_panel) + token * kv.padded_head_dim;
    for (int d = 0; d < kv.head_dim; d++) {
      ks[d * kRun + token] = k[d];
      vs[d] = v[d];
    }
    return;
  }
  uint16_t* ks = reinterpret_cast<uint16_t*>(run) + token * 2;
  uint16_t* vs = reinterpret_cast<uint16_t*>(v_panel) + token / 2 * 2 * kv.padded_head_dim + token % 2;
  for (int d = 0; d < kv.head_dim; d += 16) {
    const int n = kv.head_dim - d < 16 ? kv.head_dim - d : 16;
    uint16_t rounded_k[16], rounded_v[16];
    store_bf16(rounded_k, load_n(k + d, n));
    store_bf16(rounded_v, load_n(v + d, n));
    for (int i = 0; i < n; i++) {
      ks[(d + i) / 2 * 2 * kRun + (d + i) % 2] = rounded_k[i];
      vs[(d + i) * 2] = rounded_v[i];
    }
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
