// Arg-max of values + Gumbel noise, block by block: most blocks are ruled out by their largest value alone, or by that
// and their random words, and never get their noise.
#pragma once
#include <cstdint>

#include "cpu/kernels/best_candidate.h"
#include "cpu/kernels/gumbel.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

constexpr int32_t kLanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

class NoisyMax {
 public:
  explicit NoisyMax(const SampleParams& address) : address_(address) {}

  // Takes x [count] of the ids from begin on, which ascend from call to call, with `largest` the largest of x; -inf is
  // no candidate. x has room for count rounded up to 16. base is a multiple of 4, and begin + count <= base +
  // kNoiseIds.
  void take(const float* x, int base, int begin, int count, float largest) {
    if (!may_win(largest, reached_)) return;
    I32x16 words[4];
    random_words(address_, base, words);
    if (!may_win(largest, words, reached_)) return;
    float noise[kNoiseIds];
    gumbel_noise(words, noise);
    for (int i = 0; i < count; i += 16) {
      const int n = count - i < 16 ? count - i : 16;
      const F32x16 value = load(x + i) + load_n(noise + (begin - base) + i, n);
      best_.take(value, load_i32(kLanes) + set1_i32(begin + i), n);
    }
    reached_ = best_.result().value;
  }

  Candidate result() const { return best_.result(); }

 private:
  const SampleParams& address_;
  BestCandidate best_;
  float reached_ = -__builtin_inff();  // value of the best so far
};

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
