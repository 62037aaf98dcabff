// Gumbel noise of token ids from Philox words, operation by operation that of cpu/kernels/gumbel.h and
// cpu/kernels/philox.h, and predicates of rows.
#pragma once
#include "cuda/math.h"
#include "cuda/sampling.h"
#include "step/accept.h"

namespace nds::cuda {

// The address of the random words of a draw; step/accept.h has the reasons.
struct NoiseAddress {
  uint64_t seed;
  uint32_t position;
  uint32_t stream_word;  // stream | sample_index << 8
  uint32_t round;
};

__device__ inline NoiseAddress address_of(const DeviceParams& params, NoiseStream stream, int32_t position,
                                          int32_t round) {
  return {params.seed, static_cast<uint32_t>(position), static_cast<uint32_t>(stream) | params.sample_index << 8,
          static_cast<uint32_t>(round)};
}

// Philox4x32-10: words[w] is that of token id 4 * block + w.
__device__ inline void philox(const NoiseAddress& address, uint32_t block, uint32_t (&words)[4]) {
  uint32_t key0 = static_cast<uint32_t>(address.seed), key1 = static_cast<uint32_t>(address.seed >> 32);
  uint32_t c0 = block, c1 = address.position, c2 = address.stream_word, c3 = address.round;
  for (int round = 0; round < 10; round++) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * c0, product1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
    c3 = static_cast<uint32_t>(product0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

// -log(-log(u)) with u = (word + 0.5) / 2^32; cpu/kernels/gumbel.h explains the upper half.
__device__ inline float gumbel(uint32_t word) {
  const bool upper = (word & 0x80000000u) != 0;
  const float count = static_cast<float>(static_cast<int32_t>(upper ? ~word : word));
  const float w = __fmul_rn(__fadd_rn(count, 0.5f), 2.3283064365386963e-10f);  // 2^-32
  float exponential;
  if (upper) {
    const float y = __fsub_rn(1.0f, w);
    exponential = y == 1.0f ? w : __fdiv_rn(__fmul_rn(__fsub_rn(0.0f, exact_log(y)), w), __fsub_rn(1.0f, y));
  } else {
    exponential = __fsub_rn(0.0f, exact_log(w));
  }
  return __fsub_rn(0.0f, exact_log(exponential));
}

__device__ inline float gumbel_of(const NoiseAddress& address, int32_t id) {
  uint32_t words[4];
  philox(address, static_cast<uint32_t>(id) >> 2, words);
  const int w = id & 3;
  return gumbel(w == 0 ? words[0] : w == 1 ? words[1] : w == 2 ? words[2] : words[3]);
}

__device__ inline bool is_sampled(const LogitRow& row) {
  return row.row >= 0 && row.kind == static_cast<int32_t>(LogitRowKind::sample);
}
__device__ inline bool is_filtered(const SamplingBatch& batch, const LogitRow& row) {
  const DeviceParams& p = batch.slots[row.slot].params;
  return !batch.is_greedy && p.temperature > 0 && (p.top_k > 0 || p.top_p < 1 || p.min_p > 0);
}

}  // namespace nds::cuda
