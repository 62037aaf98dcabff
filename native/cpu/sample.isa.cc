// The token of one row without filters: arg-max of the logits, or of logits / temperature + Gumbel noise. Ties go to the lowest id;
// NaN and -inf never win.
#include "cpu/gumbel.h"
#include "cpu/isa_ops.h"
#include "cpu/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

// The best of each lane so far; the first of equals stays.
class Best {
 public:
  // Values of ids first_id … first_id + n - 1.
  void take(F32x16 values, int first_id, int n) {
    const Mask16 better = lt(values_, values) & first_n(n);
    values_ = select(better, values, values_);
    ids_ = select(better, load_i32(kLanes) + set1_i32(first_id), ids_);
  }

  Candidate result() const {
    float values[16];
    int32_t ids[16];
    store(values, values_);
    store_i32(ids, ids_);
    Candidate best{-__builtin_inff(), -1};
    for (int i = 0; i < 16; i++) {
      if (ids[i] < 0) continue;
      if (values[i] > best.value || (values[i] == best.value && ids[i] < best.id)) best = {values[i], ids[i]};
    }
    return best;
  }

 private:
  static constexpr int32_t kLanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  F32x16 values_ = set1(-__builtin_inff());
  I32x16 ids_ = set1_i32(-1);
};

}  // namespace

Candidate sample_row(const float* logits, int n, int first_id, const SampleParams& params) {
  Best best;
  if (params.temperature == 0) {
    for (int i = 0; i < n; i += 16) best.take(load_n(logits + i, n - i < 16 ? n - i : 16), first_id + i, n - i < 16 ? n - i : 16);
    return best.result();
  }
  const F32x16 temperature = set1(params.temperature);
  const int base = first_id / 4 * 4, end = first_id + n;
  for (int block = base; block < end; block += kNoiseIds) {
    float noise[kNoiseIds];
    gumbel_noise(params, block, noise);
    const int begin = block < first_id ? first_id : block, block_end = block + kNoiseIds < end ? block + kNoiseIds : end;
    for (int id = begin; id < block_end; id += 16) {
      const int count = block_end - id < 16 ? block_end - id : 16;
      best.take(load_n(logits + (id - first_id), count) / temperature + load_n(noise + (id - block), count), id, count);
    }
  }
  return best.result();
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
