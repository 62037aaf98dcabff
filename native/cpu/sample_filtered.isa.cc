// The token of one row with filters: temperature, then top-k, top-p and min-p, each over what the one before left, then Gumbel arg-max.
//
// "In order" always means value descending, then id ascending. Nothing is sorted: top-k and top-p keep a prefix of that order, and
// its last value is found in histograms. NaN and -inf are no candidates.
#include "cpu/best_candidate.h"
#include "cpu/gumbel.h"
#include "cpu/isa_ops.h"
#include "cpu/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

inline float minus_infinity() { return -__builtin_inff(); }
inline int lanes_left(int n, int i) { return n - i < 16 ? n - i : 16; }

// Values of candidates by ascending id. ids is null for the whole row, where every position is its id.
struct Candidates {
  const float* x;
  const int32_t* ids;
  int n;
  float max;
};

struct Scratch {
  float* x;           // [n] logits / temperature, -inf for NaN
  float* kept_x;      // [n]
  int32_t* kept_ids;  // [n]
  uint32_t* keys;     // [n]
  uint64_t* weights;  // [n]
};

Scratch divide_scratch(uint8_t* bytes, int64_t n) {
  return {reinterpret_cast<float*>(bytes + 8 * n), reinterpret_cast<float*>(bytes + 12 * n),
          reinterpret_cast<int32_t*>(bytes + 16 * n), reinterpret_cast<uint32_t*>(bytes + 20 * n),
          reinterpret_cast<uint64_t*>(bytes)};
}

// What a candidate counts: 1, or its mass round(exp(x - max) * 2^44), an integer so that a sum has no order.
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
    for (int i = 0; i < 16; i++) out[i] = static_cast<uint64_t>(static_cast<int64_t>(static_cast<double>(values[i]) + 0.5));
  }
};

// Candidates by their distance from the maximum, in sixteenths; the last bin holds the rest.
struct Histogram {
  static constexpr int kBins = 1024;
  uint64_t bins[kBins];
  uint64_t total;
};

inline I32x16 bin_of(F32x16 x, float max) {
  return round_to_i32(min((set1(max) - x) * set1(16.0f), set1(Histogram::kBins - 1.0f)));
}

void count_bins(const Candidates& from, const Weight& weight, Histogram& histogram) {
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

// A prefix of the order: everything above `value`, and the first num_equal of what equals it.
struct Cut {
  float value;
  uint64_t num_equal;
};

// The cut among n keys at which `target` (at least 1, at most the sum of the weights) is reached, digit by digit.
Cut cut_keys(const uint32_t* keys, const uint64_t* weights, int n, uint64_t target) {
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

// The shortest prefix that weighs at least `target`.
Cut find_cut(const Candidates& from, const Weight& weight, const Histogram& histogram, uint64_t target, const Scratch& scratch) {
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
      scratch.keys[count] = key_of(from.x[i + lane]);
      scratch.weights[count] = weights[lane];
    }
  }
  return cut_keys(scratch.keys, scratch.weights, count, target);
}

// Appends in place: a list may be filtered into itself, since what is kept never overtakes what is read.
class Kept {
 public:
  Kept(const Candidates& from, const Scratch& scratch) : from_(from), scratch_(scratch) {}
  // `lanes` of the sixteen candidates from i on, as bits.
  void append(int i, uint32_t lanes) {
    for (; lanes != 0; lanes &= lanes - 1, n_++) {
      const int from = i + __builtin_ctz(lanes);
      scratch_.kept_x[n_] = from_.x[from];
      scratch_.kept_ids[n_] = from_.ids == nullptr ? from : from_.ids[from];
    }
  }
  Candidates list() const { return {scratch_.kept_x, scratch_.kept_ids, n_, from_.max}; }

 private:
  const Candidates& from_;
  const Scratch& scratch_;
  int n_ = 0;
};

Candidates keep_prefix(const Candidates& from, Cut cut, const Scratch& scratch) {
  Kept kept(from, scratch);
  for (int i = 0; i < from.n; i += 16) {
    const int n = lanes_left(from.n, i);
    const F32x16 x = load_n(from.x + i, n);
    uint32_t lanes = bits(le(set1(cut.value), x) & first_n(n));
    if (lanes == 0) continue;
    uint32_t equal = bits(eq(x, set1(cut.value)) & first_n(n));
    for (; equal != 0; equal &= equal - 1) {
      if (cut.num_equal > 0) {
        cut.num_equal--;
      } else {
        lanes &= ~(equal & ~(equal - 1));
      }
    }
    kept.append(i, lanes);
  }
  return kept.list();
}

Candidates keep_top_k(const Candidates& from, int top_k, const Scratch& scratch) {
  const Weight weight{false, from.max};
  Histogram histogram;
  count_bins(from, weight, histogram);
  const uint64_t target = histogram.total < static_cast<uint64_t>(top_k) ? histogram.total : static_cast<uint64_t>(top_k);
  return keep_prefix(from, find_cut(from, weight, histogram, target, scratch), scratch);
}

// The shortest prefix with mass >= top_p of the mass of all, compared as integers: top_p counts in units of 2^-53.
Candidates keep_top_p(const Candidates& from, float top_p, const Scratch& scratch) {
  const Weight weight{true, from.max};
  Histogram histogram;
  count_bins(from, weight, histogram);
  const unsigned __int128 product =
      static_cast<unsigned __int128>(static_cast<uint64_t>(static_cast<double>(top_p) * 0x1p53)) * histogram.total;
  const uint64_t target = static_cast<uint64_t>((product + ((uint64_t{1} << 53) - 1)) >> 53);
  return keep_prefix(from, find_cut(from, weight, histogram, target > 0 ? target : 1, scratch), scratch);
}

// p >= min_p * p of the best, both without their common divisor: the best has exp(0) = 1.
Candidates keep_min_p(const Candidates& from, float min_p, const Scratch& scratch) {
  Kept kept(from, scratch);
  for (int i = 0; i < from.n; i += 16) {
    const int n = lanes_left(from.n, i);
    const F32x16 x = load_n(from.x + i, n);
    kept.append(i, bits(le(set1(min_p), exp(x - set1(from.max))) & first_n(n)));
  }
  return kept.list();
}

Candidates scale(const float* logits, int n, float temperature, float* x) {
  F32x16 max_lanes = set1(minus_infinity());
  for (int i = 0; i < n; i += 16) {
    const int count = lanes_left(n, i);
    const F32x16 scaled = load_n(logits + i, count) / set1(temperature);
    const F32x16 number = select(eq(scaled, scaled), scaled, set1(minus_infinity()));
    max_lanes = max(max_lanes, select(first_n(count), number, set1(minus_infinity())));
    store_n(x + i, number, count);
  }
  return {x, nullptr, n, reduce_max(max_lanes)};
}

Candidate best_of(const Candidates& from, const SampleParams& params) {
  BestCandidate best;
  for (int i = 0; i < from.n; i += 16) {
    const int n = lanes_left(from.n, i);
    int32_t ids[16] = {0};
    for (int j = 0; j < n; j++) ids[j] = from.ids == nullptr ? i + j : from.ids[i + j];
    best.take(load_n(from.x + i, n) + gumbel_noise(params, load_i32(ids)), load_i32(ids), n);
  }
  return best.result();
}

}  // namespace

int64_t filter_scratch_bytes(int n) { return int64_t{n} * 24; }

Candidate sample_filtered_row(const float* logits, int n, const SampleParams& params, uint8_t* scratch_bytes) {
  const Scratch scratch = divide_scratch(scratch_bytes, n);
  Candidates left{nullptr, nullptr, 0, minus_infinity()};
  if (params.temperature > 0) left = scale(logits, n, params.temperature, scratch.x);
  // No candidate, or one beside which no other has a chance, or no noise.
  if (left.max == minus_infinity() || left.max == -minus_infinity()) return sample_row(logits, n, 0, {0, 1, 0, 0, 0, 0, 0});
  if (params.top_k > 0) left = keep_top_k(left, params.top_k, scratch);
  if (params.top_p < 1) left = keep_top_p(left, params.top_p, scratch);
  if (params.min_p > 0) left = keep_min_p(left, params.min_p, scratch);
  return best_of(left, params);
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
