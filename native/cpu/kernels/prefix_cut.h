// The shortest prefix of a row that reaches a given weight, with the row ordered by descending value, then by ascending
// id. Nothing is sorted, and no list of ids is made: histograms find the last value of the prefix and the last id of
// that value, against which any id can be tested. The largest of each block of ids tells which blocks to look at.
#pragma once
#include <cstdint>
#include <cstring>

#include "cpu/kernels/gumbel.h"
#include "cpu/kernels/share.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

constexpr int kBlockIds = kNoiseIds;

inline float minus_infinity() { return -__builtin_inff(); }

// A row of logits / temperature.
struct ScaledRow {
  const float* logits;
  int n;
  float temperature;

  int num_blocks() const { return (n + kBlockIds - 1) / kBlockIds; }
  int end_of(int block) const { return (block + 1) * kBlockIds < n ? (block + 1) * kBlockIds : n; }
  // Values of the ids id … id + 15; -inf, which is no candidate, for NaN and past the end.
  F32x16 at(int id) const {
    if (n - id >= 16) {
      const F32x16 x = load(logits + id) / set1(temperature);
      return select(eq(x, x), x, set1(minus_infinity()));
    }
    const F32x16 x = load_n(logits + id, n - id) / set1(temperature);
    return select(eq(x, x) & first_n(n - id), x, set1(minus_infinity()));
  }
};

// Which ids are kept: those above `value`, those equal to it up to the id last_equal, and of these the ones with
// exp(x - max) >= min_p.
struct Kept {
  float max = minus_infinity();    // the largest value of the row
  float value = minus_infinity();  // -inf itself is never kept
  int last_equal = -1;
  float min_p = 0;
  float lowest = minus_infinity();  // nothing below it is kept

  // Lanes of x, the values of ids from `id` on, that are kept.
  Mask16 of(F32x16 x, int id) const {
    const int up_to = last_equal + 1 - id;
    const Mask16 equal = eq(x, set1(value)) & first_n(up_to < 0 ? 0 : up_to < 16 ? up_to : 16);
    const Mask16 kept = lt(set1(value), x) | equal;
    return min_p > 0 ? kept & le(set1(min_p), exp(x - set1(max))) : kept;
  }
};

// Distance from the maximum past which round(exp(x - max) * 2^44) is 0.
constexpr float kMasslessDistance = 32;

// Weight of a candidate: 1, or its mass round(exp(x - max) * 2^44), an integer so that no order changes a sum. A 64-bit
// sum holds fewer than 2^20 masses.
struct Weight {
  bool by_mass;
  float max;

  void of(F32x16 x, uint64_t out[16]) const {
    float values[16];
    if (by_mass) {
      store(values, exp(x - set1(max)) * set1(0x1p44f));
    } else {
      store(values, select(lt(set1(minus_infinity()), x), set1(1.0f), zero()));
    }
    for (int i = 0; i < 16; i++)
      out[i] = static_cast<uint64_t>(static_cast<int64_t>(static_cast<double>(values[i]) + 0.5));
  }
};

// Weights by distance from the maximum, in bins of 1/16; the last bin also holds all larger distances.
constexpr int kBins = 1024;
using Bins = uint64_t[kBins];

inline I32x16 bin_of(F32x16 x, float max) {
  return round_to_i32(min((set1(max) - x) * set1(16.0f), set1(kBins - 1.0f)));
}

// Distance from the maximum past which no value is in the bins 0 … bin.
inline float reach_of(int bin) {
  return bin < kBins - 1 ? (static_cast<float>(bin) + 0.5f) * (1.0f / 16) : __builtin_inff();
}

// Adds the weights of the first n lanes. A loop over n lanes, not 16, keeps the weights' own loop apart, in vectors.
inline void add_to_bins(F32x16 x, int n, const Weight& weight, Bins& bins) {
  int32_t places[16];
  uint64_t weights[16];
  store_i32(places, bin_of(x, weight.max));
  weight.of(x, weights);
  for (int j = 0; j < n; j++) bins[places[j]] += weights[j];
}

// Calls visit(x, id, kept) for sixteen ids at a time of the blocks [begin, end) of which some may be kept and lie
// within `reach` of the maximum.
template <typename Visit>
inline void each_sixteen(const ScaledRow& row, const Kept& kept, const float* block_max, Share blocks, float reach,
                         Visit visit) {
  for (int64_t b = blocks.begin; b < blocks.end; b++) {
    if (block_max[b] < kept.lowest || kept.max - block_max[b] > reach) continue;
    const int end = row.end_of(static_cast<int>(b));
    for (int id = static_cast<int>(b) * kBlockIds; id < end; id += 16) {
      const F32x16 x = row.at(id);
      visit(x, id, kept.of(x, id));
    }
  }
}

// Larger for larger values; equal for 0 and -0.
inline uint32_t key_of(float x) {
  const float without_sign_of_zero = x + 0.0f;
  uint32_t bits;
  std::memcpy(&bits, &without_sign_of_zero, 4);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
inline float value_of(uint32_t key) {
  const uint32_t bits = (key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// A prefix of the order: all candidates above `value`, and the first num_equal of those equal to it.
struct Cut {
  float value;
  uint64_t num_equal;
};

// The cut among n keys at which their weights reach `target` (from 1 to the sum of the weights), found by radix, one
// byte of the key at a time.
inline Cut cut_keys(const uint32_t* keys, const uint64_t* weights, int n, uint64_t target) {
  uint32_t prefix = 0, prefix_mask = 0;
  uint64_t one_weight = 1;
  for (int shift = 24; shift >= 0; shift -= 8) {
    uint64_t sums[256] = {0};
    for (int i = 0; i < n; i++) {
      if ((keys[i] & prefix_mask) == prefix) sums[keys[i] >> shift & 255] += weights[i];
    }
    int digit = 255;
    while (digit > 0 && sums[digit] < target) target -= sums[digit--];
    prefix |= static_cast<uint32_t>(digit) << shift;
    prefix_mask |= 0xffu << shift;
  }
  for (int i = 0; i < n; i++) {
    if (keys[i] == prefix) one_weight = weights[i];  // equal values weigh the same
  }
  return {value_of(prefix), (target + one_weight - 1) / one_weight};
}

struct CutBuffers {
  uint32_t* keys;     // [n]
  uint64_t* weights;  // [n]
};

// Id of the last of the first `num` kept ids that have this value.
inline int last_of_equals(const ScaledRow& row, const Kept& kept, const float* block_max, float value, uint64_t num) {
  for (int b = 0; b < row.num_blocks(); b++) {
    if (block_max[b] < value) continue;
    for (int id = b * kBlockIds; id < row.end_of(b); id += 16) {
      const F32x16 x = row.at(id);
      for (uint32_t equal = bits(eq(x, set1(value)) & kept.of(x, id)); equal != 0; equal &= equal - 1) {
        if (--num == 0) return id + __builtin_ctz(equal);
      }
    }
  }
  return row.n - 1;
}

// Narrows `kept` to the shortest prefix of it whose weight is at least `target`; bins hold the weights of what it
// keeps.
inline void cut_prefix(const ScaledRow& row, const float* block_max, const Weight& weight, const Bins& bins,
                       uint64_t target, const CutBuffers& buffers, Kept& kept) {
  int bin = 0;
  while (bin < kBins - 1 && bins[bin] < target) target -= bins[bin++];
  int count = 0;
  each_sixteen(row, kept, block_max, {0, row.num_blocks()}, reach_of(bin), [&](F32x16 x, int, Mask16 is_kept) {
    uint32_t inside = bits(is_kept & eq(bin_of(x, kept.max), set1_i32(bin)));
    if (inside == 0) return;
    float values[16];
    uint64_t weights[16];
    store(values, x);
    weight.of(x, weights);
    for (; inside != 0; inside &= inside - 1, count++) {
      const int lane = __builtin_ctz(inside);
      buffers.keys[count] = key_of(values[lane]);
      buffers.weights[count] = weights[lane];
    }
  });
  const Cut cut = cut_keys(buffers.keys, buffers.weights, count, target);
  kept.last_equal = last_of_equals(row, kept, block_max, cut.value, cut.num_equal);
  kept.value = kept.lowest = cut.value;
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
