// An int8 cache on tensor cores: integers are exact in bf16, so the scores are those of integers, times K's scale in
// fp32. V's scale multiplies p before p is rounded to bf16, so that one rounding is all that a product p v suffers, as
// with a bf16 cache: |error| <= 2^-8 sum of p |v| / sum of p, and fp32's. V rounded to bf16 after its scale would
// double the bound (measured: 1.3 times the error).
#pragma once
#include "attention_tile.h"

namespace nds::cuda {

template <typename Element>
constexpr bool kIsInt8 = sizeof(Element) == 1;

// The scale of K of a key; V's is block_size after it.
__device__ inline const float* key_scale(const KvCache& kv, int kv_head, int block, int key) {
  return reinterpret_cast<const float*>(kv.tile(block, kv_head) + 2 * kv.panel_bytes()) + key % kv.block_size;
}

// What p weighs V with. A key that a row does not see has p = 0, and no part in it even if its scale is NaN.
__device__ inline float scaled_weight(float p, float value_scale) { return p == 0 ? 0.0f : __fmul_rn(p, value_scale); }

// bf16 of the signed bytes 0 and 2 of x. 128 plus the low 7 bits of a byte is bf16's 0x4300 | bits; its sign bit turns
// the 128 to be subtracted, 0x4300, into 256, 0x4380. The difference is exact.
__device__ inline uint32_t widen_even(uint32_t x) {
  const uint32_t plus = (x & 0x007f007fu) | 0x43004300u, minus = (x & 0x00800080u) | 0x43004300u;
  __nv_bfloat162 a, b;
  memcpy(&a, &plus, sizeof(a));
  memcpy(&b, &minus, sizeof(b));
  const __nv_bfloat162 difference = __hsub2(a, b);
  uint32_t bits;
  memcpy(&bits, &difference, sizeof(bits));
  return bits;
}
__device__ inline uint32_t widen_odd(uint32_t x) { return widen_even(x >> 8); }
__device__ inline uint32_t widen_low(uint32_t x) { return widen_even(__byte_perm(x, 0, 0x4140)); }
__device__ inline uint32_t widen_high(uint32_t x) { return widen_even(__byte_perm(x, 0, 0x4342)); }

}  // namespace nds::cuda
