// Temperature, top-k, top-p and min-p over a whole row, each applied to what the one before kept. No element moves: two
// cuts and a threshold decide which ids are kept.
#pragma once
#include "cuda/kernels/sample_select.h"

namespace nds::cuda {

// round(exp(x - largest) * 2^44): the sum of integers does not depend on their order.
__device__ inline uint64_t mass_of(float x, float largest) {
  const float scaled = __fmul_rn(exact_exp(__fsub_rn(x, largest)), 17592186044416.0f);  // 2^44
  return static_cast<uint64_t>(static_cast<int64_t>(__dadd_rn(static_cast<double>(scaled), 0.5)));
}

struct Filter {
  float largest, min_p;
  // Arg-max without noise: the temperature is 0, no logit is a candidate, or the largest is +inf.
  bool is_arg_max;
  uint32_t cut_key;
  int last_equal;  // of the ids with key cut_key, those <= last_equal are kept

  __device__ bool keeps(uint32_t key, int32_t id) const {
    if (key < cut_key || (key == cut_key && id > last_equal)) return false;
    return !(min_p > 0) || min_p <= exact_exp(__fsub_rn(value_of(key), largest));
  }
};

// The filter of logits [n], by all threads of a block. `elements` becomes a superset of what it keeps; a list lies in
// `buffers`.
template <int kThreads>
__device__ Filter block_filter(const float* logits, int n, const DeviceParams& p, bool is_greedy, Elements& elements,
                               const CutBuffers& buffers) {
  const float temperature = is_greedy ? 0 : p.temperature;
  elements = {logits, n, temperature, nullptr, nullptr};
  Filter filter{-infinity(), p.min_p, true, kKeyOfMinusInfinity, -1};
  if (!(temperature > 0)) return filter;
  uint32_t most = 0;
  elements.each<kThreads>([&](uint32_t key, int) { most = max(most, key); });
  const float largest = value_of(block_max<kThreads>(most));
  filter.largest = largest;
  filter.is_arg_max = largest == infinity() || largest == -infinity();
  if (filter.is_arg_max) return filter;

  // Bin by distance from the largest, 1 / 16 per bin; bin 0 takes the rest.
  const auto group_of = [&](uint32_t key) {
    const float distance = __fmul_rn(__fsub_rn(largest, value_of(key)), 16.0f);
    return kBins - 1 - __float2int_rn(fminf(distance, kBins - 1.0f));
  };
  Cut cut = all_numbers();
  if (p.top_k > 0) {
    const uint64_t k = static_cast<uint64_t>(p.top_k);
    cut = find_cut<kThreads>(
        elements, buffers, cut, [](uint32_t) { return uint64_t{1}; }, group_of,
        [k](uint64_t total) { return total < k ? total : k; });
  }
  if (p.top_p < 1) {
    // Target mass = ceil(top_p * total) in integers, with top_p in units of 2^-53.
    const uint64_t share = static_cast<uint64_t>(__dmul_rn(static_cast<double>(p.top_p), 9007199254740992.0));
    cut = find_cut<kThreads>(
        elements, buffers, cut, [largest](uint32_t key) { return mass_of(value_of(key), largest); }, group_of,
        [share](uint64_t total) {
          const unsigned __int128 product = static_cast<unsigned __int128>(share) * total;
          const uint64_t target = static_cast<uint64_t>((product + ((uint64_t{1} << 53) - 1)) >> 53);
          return target > 0 ? target : 1;
        });
  }
  filter.cut_key = cut.key;
  filter.last_equal = last_equal<kThreads>(n, cut, [&](int id) { return elements.key_of_id(id); });
  return filter;
}

}  // namespace nds::cuda
