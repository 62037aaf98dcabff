// The shortest prefix of a row that has a given weight, in the order of value descending, then id ascending. Nothing is
// sorted: histograms find the last value of the prefix digit by digit (cpu/kernels/prefix_cut.h has the definition).
#pragma once
#include "cuda/kernels/sample_best.h"
#include "cuda/kernels/sample_key.h"

namespace nds::cuda {

// The same in all threads of a block of kThreads. Ends with a barrier.
template <int kThreads>
__device__ uint32_t block_max(uint32_t value) {
  SIMT_SHARED_ARRAY(uint32_t, of_warps, kThreads / 32);
  value = __reduce_max_sync(kAllLanes, value);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
  __syncthreads();
  for (int w = 0; w < kThreads / 32; w++) value = max(value, of_warps[w]);
  __syncthreads();
  return value;
}

constexpr int kBins = 2048;

// 64-bit sums in halves: 64-bit atomics on shared memory are loops, 32-bit ones are not.
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

// By one warp: the bin, from the last down, in which the running sum reaches target_of(total), what is left of that
// target for the bin, and the sum of the bin. 1 <= target_of(total) <= total where total >= 1.
struct Place {
  int bin;
  uint64_t target, sum;
};
template <typename TargetOf>
__device__ Place find_place(const Sums& sums, TargetOf target_of) {
  constexpr int kEach = kBins / 32;
  const int lane = threadIdx.x % 32, last = kBins - 1 - lane * kEach;  // lane 0 has the highest bins
  uint64_t own = 0;
  // Lanes start at different banks.
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

constexpr int kMostListed = 3072;

// Shared memory of a block that calls find_cut.
struct CutBuffers {
  Sums sums;
  Place* found;     // [1]
  uint32_t* keys;   // [kMostListed]
  int32_t* ids;     // [kMostListed]
  int* num_listed;  // [1]
};

// The candidates of a row: logits / temperature, NaN as -inf. Either the whole row, or an unordered list of all that
// can still be kept.
struct Elements {
  const float* logits;
  int n;  // of the row, or of the list
  float temperature;
  const uint32_t* keys;  // null: the whole row
  const int32_t* ids;

  __device__ float scaled(float logit) const {
    const float x = temperature == 1 ? logit : __fdiv_rn(logit, temperature);
    return x == x ? x : -infinity();
  }
  __device__ uint32_t key_of_id(int id) const { return key_of(scaled(logits[id])); }

  // visit(key, id) for each, by all threads of a block. Several loads are in flight at a time.
  template <int kThreads, typename Visit>
  __device__ void each(Visit visit) const {
    int i = threadIdx.x;
    if (keys != nullptr) {
      for (; i < n; i += kThreads) visit(keys[i], ids[i]);
      return;
    }
    for (; i + 3 * kThreads < n; i += 4 * kThreads) {
      float x[4];
      for (int j = 0; j < 4; j++) x[j] = logits[i + j * kThreads];
      for (int j = 0; j < 4; j++) visit(key_of(scaled(x[j])), i + j * kThreads);
    }
    for (; i < n; i += kThreads) visit(key_of_id(i), i);
  }
};

// Replaces a whole row by the list of its elements with wanted(key), if they are at most kMostListed.
template <int kThreads, typename Wanted>
__device__ void make_list(Elements& elements, const CutBuffers& buffers, Wanted wanted) {
  constexpr int kEach = 4;
  const unsigned lane = threadIdx.x % 32;
  if (threadIdx.x == 0) buffers.num_listed[0] = 0;
  __syncthreads();
  for (int base = 0; base < elements.n; base += kEach * kThreads) {
    uint32_t keys[kEach];
    for (int j = 0; j < kEach; j++) {
      const int id = base + j * kThreads + static_cast<int>(threadIdx.x);
      keys[j] = id < elements.n ? elements.key_of_id(id) : 0;  // 0 is no key of a number
    }
    for (int j = 0; j < kEach; j++) {
      const bool is_wanted = keys[j] != 0 && wanted(keys[j]);
      const unsigned lanes = __ballot_sync(kAllLanes, is_wanted);
      if (lanes == 0) continue;
      int place = 0;
      if (lane == 0) place = atomicAdd(buffers.num_listed, __popc(lanes));
      place = __shfl_sync(kAllLanes, place, 0) + __popc(lanes & ((1u << lane) - 1));
      if (!is_wanted || place >= kMostListed) continue;
      buffers.keys[place] = keys[j];
      buffers.ids[place] = base + j * kThreads + static_cast<int>(threadIdx.x);
    }
  }
  __syncthreads();
  const int num_listed = buffers.num_listed[0];
  __syncthreads();
  if (num_listed > kMostListed) return;
  elements.keys = buffers.keys;
  elements.ids = buffers.ids;
  elements.n = num_listed;
}

// The shortest prefix of the prefix `earlier` with weight >= target_of(weight of `earlier`), by all threads of a block.
// `elements` may become a list, a superset of the prefix.
//   weight_of(key)  equal keys have equal weights
//   group_of(key)   in [0, kBins), monotone in the key: a first digit that spreads the keys well
template <int kThreads, typename WeightOf, typename GroupOf, typename TargetOf>
__device__ Cut find_cut(Elements& elements, const CutBuffers& buffers, const Cut& earlier, WeightOf weight_of,
                        GroupOf group_of, TargetOf target_of) {
  const Sums& sums = buffers.sums;
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
    for (int i = threadIdx.x; i < kBins; i += kThreads) sums.low[i] = sums.high[i] = 0;
    __syncthreads();
    elements.each<kThreads>([&](uint32_t key, int) {
      if (key > earlier.key) offer_key(key, 1);
    });
    if (threadIdx.x == 0 && earlier.num_equal > 0) offer_key(earlier.key, earlier.num_equal);
    __syncthreads();
    if (threadIdx.x < 32) {
      const Place here = find_place(sums, [&](uint64_t total) { return level == 0 ? target_of(total) : place.target; });
      if (threadIdx.x == 0) buffers.found[0] = here;
    }
    __syncthreads();
    place = buffers.found[0];
    if (level > 0) {
      prefix |= static_cast<uint32_t>(place.bin) << shift;
      mask |= ((1u << num_bits) - 1) << shift;
      continue;
    }
    group = place.bin;
    if (elements.keys == nullptr) {
      make_list<kThreads>(elements, buffers, [&](uint32_t key) {
        return (key > earlier.key || (key == earlier.key && earlier.num_equal > 0)) && group_of(key) >= group;
      });
    }
  }
  const uint64_t one = weight_of(prefix);
  const uint64_t num_equal = one == 0 ? 0 : (place.target + one - 1) / one;
  __syncthreads();
  return {prefix, num_equal, num_equal * one == place.sum && (prefix != earlier.key || earlier.is_whole)};
}

// Declares CutBuffers of this name in a kernel that calls find_cut.
#define NDS_CUT_BUFFERS(name)                            \
  SIMT_SHARED_ARRAY(uint32_t, name##_low, kBins);        \
  SIMT_SHARED_ARRAY(uint32_t, name##_high, kBins);       \
  SIMT_SHARED_ARRAY(Place, name##_found, 1);             \
  SIMT_SHARED_ARRAY(uint32_t, name##_keys, kMostListed); \
  SIMT_SHARED_ARRAY(int32_t, name##_ids, kMostListed);   \
  SIMT_SHARED_ARRAY(int, name##_num_listed, 1);          \
  const CutBuffers name { {name##_low, name##_high}, name##_found, name##_keys, name##_ids, name##_num_listed }

// The id of the last equal element that a cut keeps, by all threads of a block; n where it keeps all, -1 where none.
// Each warp counts those of a run of ids; the warp whose run has the last one looks for it.
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
