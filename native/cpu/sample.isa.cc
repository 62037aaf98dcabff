// The token of one row without filters: arg-max of the logits, or of logits / temperature + Gumbel noise. Ties go to the lowest id;
// NaN and -inf are never taken.
#include "cpu/best_candidate.h"
#include "cpu/gumbel.h"
#include "cpu/isa_ops.h"
#include "cpu/simd.h"

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

}  // namespace

Candidate sample_row(const float* logits, int n, int first_id, const SampleParams& params) {
  if (params.temperature == 0) return arg_max(logits, n, first_id);
  BestCandidate best;
  const F32x16 temperature = set1(params.temperature);
  const int end = first_id + n;
  // Blocks of noise begin at multiples of 4, wherever the ids of this rank do.
  for (int block = first_id / 4 * 4; block < end; block += kNoiseIds) {
    float noise[kNoiseIds];
    gumbel_noise(params, block, noise);
    const int begin = block < first_id ? first_id : block, block_end = block + kNoiseIds < end ? block + kNoiseIds : end;
    for (int id = begin; id < block_end; id += 16) {
      const int count = block_end - id < 16 ? block_end - id : 16;
      const F32x16 scaled = load_n(logits + (id - first_id), count) / temperature;
      best.take(scaled + load_n(noise + (id - block), count), load_i32(kLanes) + set1_i32(id), count);
    }
  }
  return best.result();
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
