// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): random words, addressed by
// a counter, without state.
#pragma once
#include <cstdint>

#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Sixteen counters at once: counter[w] holds word w of the counters, words[w] word w of the results.
inline void philox(const I32x16 counter[4], uint64_t seed, I32x16 words[4]) {
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  const I32x16 multiplier0 = set1_i32(static_cast<int32_t>(0xD2511F53u)),
               multiplier1 = set1_i32(static_cast<int32_t>(0xCD9E8D57u));
  I32x16 c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  for (int round = 0; round < 10; round++) {
    const I32x16 high0 = mul_hi(multiplier0, c0), low0 = mul_lo(multiplier0, c0);
    const I32x16 high1 = mul_hi(multiplier1, c2), low1 = mul_lo(multiplier1, c2);
    c0 = high1 ^ c1 ^ set1_i32(static_cast<int32_t>(key0));
    c1 = low1;
    c2 = high0 ^ c3 ^ set1_i32(static_cast<int32_t>(key1));
    c3 = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
