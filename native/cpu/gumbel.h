// Gumbel noise of every token id, from random words that have an address: (seed, position, token id, stream, sample index).
#pragma once
#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/philox.h"
#include "cpu/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

constexpr int kNoiseIds = 64;  // ids that one call of philox covers

// -log(-log(u)) with u = (x + 0.5) / 2^32. Near 1, -log(u) is -log1p(-w) with w = 1 - u exact, so the upper tail keeps its precision.
inline F32x16 gumbel(I32x16 x) {
  const Mask16 upper = lt(x, set1_i32(0));
  const F32x16 w = (to_f32(select(upper, x ^ set1_i32(-1), x)) + set1(0.5f)) * set1(0x1p-32f);
  const F32x16 y = set1(1.0f) - w;
  const F32x16 near_one = select(eq(y, set1(1.0f)), w, (zero() - log(y)) * w / (set1(1.0f) - y));
  const F32x16 exponential = select(upper, near_one, zero() - log(w));
  return zero() - log(exponential);
}

// noise[i] belongs to token id base_id + i; base_id is a multiple of 4.
inline void gumbel_noise(const SampleParams& params, int base_id, float noise[kNoiseIds]) {
  constexpr uint32_t kTargetStream = 0;
  int32_t block[16];
  for (int lane = 0; lane < 16; lane++) block[lane] = base_id / 4 + lane;
  I32x16 counter[4] = {load_i32(block), set1_i32(static_cast<int32_t>(params.position)), set1_i32(static_cast<int32_t>(kTargetStream | params.sample_index << 8)), set1_i32(0)};
  I32x16 words[4];
  philox(counter, params.seed, words);
  float by_word[4][16];
  for (int w = 0; w < 4; w++) store(by_word[w], gumbel(words[w]));
  for (int i = 0; i < kNoiseIds; i++) noise[i] = by_word[i % 4][i / 4];
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
