// Samples one row without filters: arg-max of the logits, or of logits / temperature + Gumbel noise. Ties go to the
// lowest id; NaN and -inf are never taken.
#include "cpu/kernels/best_candidate.h"
#include "cpu/kernels/gumbel.h"
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

constexpr int32_t kLanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

Candidate arg_max(const float* logits, int n, int first_id) {
  BestCandidate best;
  const I32x16 ids = load_i32(kLanes) + set1_i32(first_id);
  for (int i = 0; i < n; i += 16) {
    const int count = n - i < 16 ? n - i : 16;
    best.take(load_n(logits + i, count), ids + set1_i32(i), count);
  }
  return best.result();
}

// logits / temperature of ids [begin, end), and the largest of them.
struct Block {
  int begin, end;
  float x[kNoiseIds];
  float largest;

  Block(const float* logits, int first, int last, F32x16 temperature) : begin(first), end(last) {
    F32x16 lanes = set1(-__builtin_inff());
    for (int i = 0; i < end - begin; i += 16) {
      const int n = end - begin - i < 16 ? end - begin - i : 16;
      const F32x16 scaled = load_n(logits + i, n) / temperature;
      store(x + i, scaled);
      // max(a, b) is b where a is NaN, so NaN is skipped.
      lanes = max(select(first_n(n), scaled, lanes), lanes);
    }
    largest = reduce_max(lanes);
  }
};

}  // namespace

Candidate sample_row(const float* logits, int n, int first_id, const SampleParams& params) {
  const Candidate largest = arg_max(logits, n, first_id);
  if (params.temperature == 0 || largest.id < 0) return largest;
  const F32x16 temperature = set1(params.temperature);
  // Lower bound on the result: the largest logit with its noise. Blocks that cannot reach it are skipped.
  float reached[16];
  store(reached, set1(largest.value) / temperature + gumbel_noise(params, set1_i32(largest.id)));

  BestCandidate best;
  const int end = first_id + n;
  // Blocks of noise begin at multiples of 4, the ids of this rank anywhere.
  for (int base = first_id / 4 * 4; base < end; base += kNoiseIds) {
    const int begin = base < first_id ? first_id : base;
    const Block block(logits + (begin - first_id), begin, base + kNoiseIds < end ? base + kNoiseIds : end, temperature);
    I32x16 words[4];
    random_words(params, base, words);
    if (!may_win(block.largest, words, reached[0])) continue;
    float noise[kNoiseIds];
    gumbel_noise(words, noise);
    for (int id = block.begin; id < block.end; id += 16) {
      const int count = block.end - id < 16 ? block.end - id : 16;
      const F32x16 value = load(block.x + (id - begin)) + load_n(noise + (id - base), count);
      best.take(value, load_i32(kLanes) + set1_i32(id), count);
    }
  }
  return best.result();
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
