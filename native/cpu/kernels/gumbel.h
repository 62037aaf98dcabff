// Gumbel noise of token ids, from random words addressed by (seed, position, token id, stream, sample index, round).
#pragma once
#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/kernels/philox.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

constexpr int kNoiseIds = 64;  // consecutive ids that one call of philox covers

// -log(-log(u)) with u = (x + 0.5) / 2^32. In the upper half, -log(u) = -log1p(-w) with w = 1 - u exact: log of the
// rounded y = 1 - w, corrected by w / (1 - y), has full relative precision however near u is to 1.
inline F32x16 gumbel(I32x16 x) {
  const Mask16 upper = lt(x, set1_i32(0));
  const F32x16 w = (to_f32(select(upper, x ^ set1_i32(-1), x)) + set1(0.5f)) * set1(0x1p-32f);
  const F32x16 y = set1(1.0f) - w;
  const F32x16 near_one = select(eq(y, set1(1.0f)), w, (zero() - log(y)) * w / (set1(1.0f) - y));
  const F32x16 exponential = select(upper, near_one, zero() - log(w));
  return zero() - log(exponential);
}

// Word 2 of a Philox counter.
inline int32_t stream_word(NoiseStream stream, uint32_t sample_index) {
  return static_cast<int32_t>(static_cast<uint32_t>(stream) | sample_index << 8);
}

// Random words, one per token id: a lane of words[w] is that of id 4 * blocks + w.
inline void random_words(const SampleParams& params, I32x16 blocks, I32x16 words[4]) {
  const I32x16 counter[4] = {blocks, set1_i32(static_cast<int32_t>(params.position)),
                             set1_i32(stream_word(params.stream, params.sample_index)),
                             set1_i32(static_cast<int32_t>(params.round))};
  philox(counter, params.seed, words);
}

// The words of kNoiseIds consecutive ids from base_id on, which is a multiple of 4: id base_id + i has lane i / 4 of
// words[i % 4].
inline void random_words(const SampleParams& params, int base_id, I32x16 words[4]) {
  int32_t blocks[16];
  for (int lane = 0; lane < 16; lane++) blocks[lane] = base_id / 4 + lane;
  random_words(params, load_i32(blocks), words);
}

// Whether the noise of any of these words may be at least `noise`: no false negatives, hardly any false positives.
inline bool may_reach(const I32x16 words[4], float noise) {
  // Noise of at least g implies 1 - u <= exp(-g). If that holds for a quarter of all words or more, one of these 64
  // almost surely does: no search.
  const float tail = exp1(-noise);
  if (!(tail < 0.25f)) return true;
  const I32x16 largest = set1_i32(static_cast<int32_t>(tail * 0x1.0001p32f) + 2);
  Mask16 reaching = first_n(0);
  for (int w = 0; w < 4; w++) {
    reaching = reaching | (lt(words[w], set1_i32(0)) & lt(words[w] ^ set1_i32(-1), largest));
  }
  return any(reaching);
}

constexpr float kLargestNoise = 22.88f;  // 33 ln 2, of the word 2^32 - 1

// What `largest` lacks to reach `best`, less a slack far above the rounding errors of the sums. NaN if both are
// infinite.
inline float missing_noise(float largest, float best) {
  const float missing = best - largest;
  const float magnitude = best < 0 ? -best : best;
  return missing - (0.01f + 1e-6f * (missing + magnitude));
}

// Whether `largest` + any noise may reach `best`.
inline bool may_win(float largest, float best) {
  return largest != -__builtin_inff() && !(missing_noise(largest, best) > kLargestNoise);
}

// Whether `largest` + the noise of one of these words may reach `best`.
inline bool may_win(float largest, const I32x16 words[4], float best) {
  if (largest == -__builtin_inff()) return false;
  const float missing = missing_noise(largest, best);
  return !(missing > 0) || may_reach(words, missing);
}

// noise[i] of id base_id + i, whose word is in lane i / 4 of words[i % 4].
inline void gumbel_noise(const I32x16 words[4], float noise[kNoiseIds]) {
  float by_word[4][16];
  for (int w = 0; w < 4; w++) store(by_word[w], gumbel(words[w]));
  for (int i = 0; i < kNoiseIds; i++) noise[i] = by_word[i % 4][i / 4];
}

// Noise of sixteen arbitrary ids.
inline F32x16 gumbel_noise(const SampleParams& params, I32x16 ids) {
  I32x16 words[4];
  random_words(params, shr<2>(ids), words);
  const I32x16 which = ids & set1_i32(3);
  I32x16 word = words[0];
  for (int w = 1; w < 4; w++) word = select(eq(which, set1_i32(w)), words[w], word);
  return gumbel(word);
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
