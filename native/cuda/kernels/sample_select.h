// Where a prefix of a row ends that weighs a given amount, with the row in order: value descending, then id ascending.
// Nothing is sorted: histograms find the last value of the prefix, digit by digit (cpu/prefix_cut.h has the meaning).
#pragma once
#include "cuda/kernels/sample_best.h"

namespace nds::cuda {

// Larger for larger values; equal for 0 and -0.
__device__ inline uint32_t key_of(float x) {
  const uint32_t bits = float_to_bits(__fadd_rn(x, 0.0f));
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ inline float value_of(uint32_t key) {
  return bits_to_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}
constexpr uint32_t kKeyOfMinusInfinity = 0x007fffffu;

// A prefix of the order: all keys above `key`, and the first num_equal of those equal to it.
struct Cut {
  uint32_t key;
  uint64_t num_equal;
  bool is_whole;  // those are all that are equal
};
// All but -inf.
__device__ inline Cut all_numbers() { return {kKeyOfMinusInfinity, 0, false}; }

constexpr int kBins = 2048;

// 64-bit sums in halves: 64-bit atomics of shared memory are loops, 32-bit ones are not.
struct Sums {
  uint32_t* low;   // [kBins]
  uint32_t* high;  // [kBins]

  __device__ void add(int bin, uint64_t weight) const {
    const uint32_t part = static_cast<uint32_t>(weight);
    const uint32_t old = atomicAdd(&low[bin], part);
    const uint32_t above = static_cast<uint32_t>(weight >> 32) + (old + part < old ? 1u : 0u);
    if (above != 0) atomicAdd(&high[bin], above);
  }
  __device__ uint64_t at(int bin) const { return uint64_t{high[bin]} << 32 | low[bin]; }
};

// By one warp: the bin, from the last down, in which `target` is reached, and what of it is left for that bin.
// target_of(total) must be 1 at least where the total is, and at most the total.
struct Place {
  int bin;
  uint64_t target, sum;
};
template <typename TargetOf>
__device__ Place find_place(const Sums& sums, TargetOf target_of) {
  constexpr int kEach = kBins / 32;
  const int lane = threadIdx.x % 32, last = kBins - 1 - lane * kEach;  // lane 0 has the highest bins
  uint64_t own = 0;
  // Lanes begin at different banks.
  for (int i = 0; i < kEach; i++) own += sums.at(last - (i + lane) % kEach);
  uint64_t until = own;
  for (int offset = 1; offset < 32; offset *= 2) {
    const uint64_t before = __shfl_up_sync(kAllLanes, static_cast<unsigned long long>(until), offset);
    if (lane >= offset) until += before;
  }
  const uint64_t total = __shfl_sync(kAllLanes, static_cast<unsigned long long>(until), 31);
  const uint64_t target = target_of(total);
  const unsigned reached = __ballot_sync(kAllLanes, until >= target);
  const int owner = reached == 0 ? 31 : 31 - __clz(static_cast<int>(reached & (0u - reached)));
  Place place{0, 0, 0};
  if (lane == owner) {
    place.target = target - (until - own);
    place.bin = last;
    while (place.bin > last - (kEach - 1) && sums.at(place.bin) < place.target) place.target -= sums.at(place.bin--);
    place.sum = sums.at(place.bin);
  }
  return {__shfl_sync(kAllLanes, place.bin, owner),
          __shfl_sync(kAllLanes, static_cast<unsigned long long>(place.target), owner),
          __shfl_sync(kAllLanes, static_cast<unsigned long long>(place.sum), owner)};
}

// The shortest prefix of the prefix `earlier` that weighs target_of(weight of that), by all threads of a block.
//   key_at(i)       of element i of n
//   weight_of(key)  equal keys weigh the same
//   group_of(key)   0 … kBins - 1, never smaller for a larger key: a first digit that spreads the keys well
template <int kThreads, typename KeyAt, typename WeightOf, typename GroupOf, typename TargetOf>
__device__ Cut find_cut(int n, const Cut& earlier, KeyAt key_at, WeightOf weight_of, GroupOf group_of,
                        TargetOf target_of) {
  SIMT_SHARED_ARRAY(uint32_t, low, kBins);
  SIMT_SHARED_ARRAY(uint32_t, high, kBins);
  SIMT_SHARED_ARRAY(Place, found, 1);
  const Sums sums{low, high};
  int group = 0;
  uint32_t prefix = 0, mask = 0;
  Place place{0, 0, 0};
  for (int level = 0; level < 4; level++) {
    const int shift = level <= 1 ? 21 : level == 2 ? 10 : 0, num_bits = level == 3 ? 10 : 11;
    const auto offer_key = [&](uint32_t key, uint64_t count) {
      const int of_key = group_of(key);
      if (level > 0 && (of_key != group || (key & mask) != prefix)) return;
      const uint64_t weight = weight_of(key) * count;
      if (weight != 0) sums.add(level == 0 ? of_key : static_cast<int>(key >> shift & ((1u << num_bits) - 1)), weight);
    };
    for (int i = threadIdx.x; i < kBins; i += kThreads) low[i] = high[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += kThreads) {
      const uint32_t key = key_at(i);
      if (key > earlier.key) offer_key(key, 1);
    }
    if (threadIdx.x == 0 && earlier.num_equal > 0) offer_key(earlier.key, earlier.num_equal);
    __syncthreads();
    if (threadIdx.x < 32) {
      const Place here =
          find_place(sums, [&](uint64_t total) { return level == 0 ? target_of(total) : place.target; });
      if (threadIdx.x == 0) found[0] = here;
    }
    __syncthreads();
    place = found[0];
    if (level == 0) {
      group = place.bin;
    } else {
      prefix |= static_cast<uint32_t>(place.bin) << shift;
      mask |= ((1u << num_bits) - 1) << shift;
    }
  }
  const uint64_t one = weight_of(prefix);
  const uint64_t num_equal = one == 0 ? 0 : (place.target + one - 1) / one;
  __syncthreads();
  return {prefix, num_equal, num_equal * one == place.sum && (prefix != earlier.key || earlier.is_whole)};
}

// The id of the last equal element that a cut keeps, by all threads of a block; n where it keeps all. Each warp counts
// those of a run of ids; the warp whose run has the last one looks for it.
template <int kThreads, typename KeyAt>
__device__ int last_equal(int n, const Cut& cut, KeyAt key_at) {
  if (cut.is_whole || cut.num_equal == 0) return cut.is_whole ? n : -1;
  SIMT_SHARED_ARRAY(int, counts, kThreads / 32);
  SIMT_SHARED_ARRAY(int, last, 1);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int share = (n + kThreads - 1) / kThreads * 32, begin = min(n, warp * share), end = min(n, begin + share);
  int count = 0;
  for (int i = begin + lane; i < end; i += 32) count += key_at(i) == cut.key;
  count = __reduce_add_sync(kAllLanes, count);
  if (lane == 0) counts[warp] = count;
  if (threadIdx.x == 0) last[0] = n;
  __syncthreads();
  int64_t left = static_cast<int64_t>(cut.num_equal);
  for (int w = 0; w < warp; w++) left -= counts[w];
  if (left > 0 && left <= count) {
    for (int base = begin; base < end; base += 32) {
      unsigned equal = __ballot_sync(kAllLanes, base + lane < end && key_at(base + lane) == cut.key);
      for (; equal != 0; equal &= equal - 1) {
        if (--left == 0 && lane == 0) last[0] = base + 31 - __clz(static_cast<int>(equal & (0u - equal)));
      }
    }
  }
  __syncthreads();
  const int id = last[0];
  __syncthreads();
  return id;
}

}  // namespace nds::cuda
