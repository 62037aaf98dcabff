// Samples one row without filters: arg-max of the logits, or of logits / temperature + Gumbel noise. Ties go to the
// lowest id; NaN and -inf are never taken. Either way the logits are read once.
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/noisy_max.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

constexpr int kBlock = 64;  // ids that one comparison with the best so far covers

// The largest of `count` (1 … 64) logits, lane by lane, NaN left out: max(a, b) is b where a is NaN.
F32x16 largest_lanes(const float* logits, int count) {
  F32x16 even = set1(-__builtin_inff()), odd = even;
  if (count == kBlock) {
    even = max(load(logits), even);
    odd = max(load(logits + 16), odd);
    even = max(load(logits + 32), even);
    odd = max(load(logits + 48), odd);
    return max(even, odd);
  }
  for (int i = 0; i < count; i += 16) {
    const int n = count - i < 16 ? count - i : 16;
    even = max(select(first_n(n), load_n(logits + i, n), even), even);
  }
  return even;
}

Candidate arg_max(const float* logits, int n, int first_id) {
  Candidate best{-__builtin_inff(), -1};
  int block = 0;
  for (int i = 0; i < n; i += kBlock) {
    const F32x16 lanes = largest_lanes(logits + i, n - i < kBlock ? n - i : kBlock);
    if (!any(lt(set1(best.value), lanes))) continue;
    best.value = reduce_max(lanes);
    block = i;
  }
  if (best.value == -__builtin_inff()) return best;
  int id = block;
  while (!(logits[id] == best.value)) id++;
  return {logits[id], first_id + id};
}

}  // namespace

Candidate sample_row(const float* logits, int n, int first_id, const SampleParams& params) {
  if (params.temperature == 0) return arg_max(logits, n, first_id);
  const F32x16 temperature = set1(params.temperature);
  NoisyMax best(params);
  const int end = first_id + n;
  // Blocks of noise begin at multiples of 4, the ids of this rank anywhere.
  for (int base = first_id / 4 * 4; base < end; base += kNoiseIds) {
    const int begin = base < first_id ? first_id : base;
    const int count = (base + kNoiseIds < end ? base + kNoiseIds : end) - begin;
    float x[kNoiseIds];
    F32x16 largest = set1(-__builtin_inff());
    for (int i = 0; i < count; i += 16) {
      const int lanes = count - i < 16 ? count - i : 16;
      const F32x16 scaled = load_n(logits + (begin - first_id) + i, lanes) / temperature;
      store(x + i, scaled);
      largest = max(select(first_n(lanes), scaled, largest), largest);
    }
    best.take(x, base, begin, count, reduce_max(largest));
  }
  return best.result();
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
