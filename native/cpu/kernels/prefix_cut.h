// The shortest prefix of a row that reaches a given weight, with the row ordered by descending value, then by ascending
// position. Nothing is sorted: histograms find the last value of the prefix.
#pragma once
#include <cstdint>
#include <cstring>

#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

inline float minus_infinity() { return -__builtin_inff(); }
inline int lanes_left(int n, int i) { return n - i < 16 ? n - i : 16; }

// Values of candidates by ascending id. ids is null for the whole row, where every position is its id. -inf is no
// candidate, and there is no NaN.
struct Candidates {
  const float* x;
  const int32_t* ids;
  int n;
  float max;
};

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
struct Histogram {
  static constexpr int kBins = 1024;
  uint64_t bins[kBins];
  uint64_t total;
};

inline I32x16 bin_of(F32x16 x, float max) {
  return round_to_i32(min((set1(max) - x) * set1(16.0f), set1(Histogram::kBins - 1.0f)));
}

inline void count_bins(const Candidates& from, const Weight& weight, Histogram& histogram) {
  std::memset(&histogram, 0, sizeof(histogram));
  for (int i = 0; i < from.n; i += 16) {
    const int n = lanes_left(from.n, i);
    const F32x16 x = load_n(from.x + i, n);
    int32_t bins[16];
    uint64_t weights[16];
    store_i32(bins, bin_of(x, from.max));
    weight.of(x, weights);
    for (int j = 0; j < n; j++) histogram.bins[bins[j]] += weights[j];
  }
  for (const uint64_t bin : histogram.bins) histogram.total += bin;
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

// The shortest prefix whose weight is at least `target`.
inline Cut find_cut(const Candidates& from, const Weight& weight, const Histogram& histogram, uint64_t target,
                    const CutBuffers& buffers) {
  int bin = 0;
  while (bin < Histogram::kBins - 1 && histogram.bins[bin] < target) target -= histogram.bins[bin++];
  int count = 0;
  for (int i = 0; i < from.n; i += 16) {
    const int n = lanes_left(from.n, i);
    const F32x16 x = load_n(from.x + i, n);
    uint32_t inside = bits(eq(bin_of(x, from.max), set1_i32(bin)) & lt(set1(minus_infinity()), x) & first_n(n));
    if (inside == 0) continue;
    uint64_t weights[16];
    weight.of(x, weights);
    for (; inside != 0; inside &= inside - 1, count++) {
      const int lane = __builtin_ctz(inside);
      buffers.keys[count] = key_of(from.x[i + lane]);
      buffers.weights[count] = weights[lane];
    }
  }
  return cut_keys(buffers.keys, buffers.weights, count, target);
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
