// Sizes of the paged KV cache.
#include "cpu/kv_view.h"

#include <string>

#include "core/error.h"
#include "core/round_up.h"

namespace nds::cpu {

KvView plan_kv(const KvSpec& spec, DType activation_dtype) {
  constexpr int64_t kScaleBytes = 2 * kRun * 4;
  KvView kv;
  kv.dtype = activation_dtype;
  kv.kv_dtype = spec.dtype;
  const bool is_int8 = spec.dtype == KvDtype::int8, is_bf16 = spec.dtype == KvDtype::bf16;
  kv.num_blocks = spec.num_blocks;
  kv.block_size = spec.block_size;
  kv.num_kv_heads = spec.num_kv_heads;
  kv.head_dim = spec.head_dim;
  kv.padded_head_dim = static_cast<int>(round_up(spec.head_dim, 16));
  const int64_t element_bytes = is_int8 ? 1 : is_bf16 ? 2 : static_cast<int64_t>(dtype_size(activation_dtype));
  kv.panel_bytes = int64_t{kRun} * kv.padded_head_dim * element_bytes;
  kv.run_bytes = kv.panel_bytes * 2 + (is_int8 ? kScaleBytes : 0);
  kv.tile_bytes = kv.run_bytes * (spec.block_size / kRun);
  int64_t total = 0;
  if (__builtin_mul_overflow(kv.tile_bytes * kv.num_kv_heads, int64_t{spec.num_layers}, &kv.block_stride) ||
      __builtin_mul_overflow(kv.block_stride, int64_t{spec.num_blocks}, &total)) {
    throw Error("ERR_SYSTEM",
                "Expected a KV cache that fits in memory but received " + std::to_string(spec.num_blocks) + " blocks");
  }
  return kv;
}

}  // namespace nds::cpu
