// Samples one row with filters: temperature, then top-k, top-p and min-p, each over what the previous one kept; then
// the token by Gumbel arg-max, or the remaining distribution.
//
// Top-k and top-p keep a prefix of the order "value descending, then id ascending". NaN and -inf are no candidates.
#include "cpu/kernels/best_candidate.h"
#include "cpu/kernels/gumbel.h"
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/prefix_cut.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

struct Scratch {
  float* x;           // [n] logits / temperature, -inf for NaN
  float* kept_x;      // [n]
  int32_t* kept_ids;  // [n]
  CutBuffers cut;
};

Scratch divide_scratch(uint8_t* bytes, int64_t n) {
  return {reinterpret_cast<float*>(bytes + 8 * n),
          reinterpret_cast<float*>(bytes + 12 * n),
          reinterpret_cast<int32_t*>(bytes + 16 * n),
          {reinterpret_cast<uint32_t*>(bytes + 20 * n), reinterpret_cast<uint64_t*>(bytes)}};
}

// Candidates kept by a filter. A list may be filtered into itself: writing never overtakes reading.
class Kept {
 public:
  Kept(const Candidates& from, const Scratch& scratch) : from_(from), scratch_(scratch) {}
  // Bit j of `lanes`: candidate i + j is kept.
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
  const uint64_t target =
      histogram.total < static_cast<uint64_t>(top_k) ? histogram.total : static_cast<uint64_t>(top_k);
  return keep_prefix(from, find_cut(from, weight, histogram, target, scratch.cut), scratch);
}

// The shortest prefix with at least top_p of the total mass, compared as integers: top_p in units of 2^-53.
Candidates keep_top_p(const Candidates& from, float top_p, const Scratch& scratch) {
  const Weight weight{true, from.max};
  Histogram histogram;
  count_bins(from, weight, histogram);
  const unsigned __int128 product =
      static_cast<unsigned __int128>(static_cast<uint64_t>(static_cast<double>(top_p) * 0x1p53)) * histogram.total;
  const uint64_t target = static_cast<uint64_t>((product + ((uint64_t{1} << 53) - 1)) >> 53);
  return keep_prefix(from, find_cut(from, weight, histogram, target > 0 ? target : 1, scratch.cut), scratch);
}

// Keeps p(x) >= min_p * max p. The normalizer cancels: exp(x - max) >= min_p, since the best has exp(0) = 1.
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

bool is_infinite(float x) { return x == minus_infinity() || x == -minus_infinity(); }

// Candidates left by temperature and filters. Their max is infinite where noise decides nothing: no candidate (-inf),
// temperature 0 (-inf), or a logit whose scaled value is +inf.
Candidates filter_row(const float* logits, int n, const SampleParams& params, const Scratch& scratch) {
  Candidates left{nullptr, nullptr, 0, minus_infinity()};
  if (params.temperature > 0) left = scale(logits, n, params.temperature, scratch.x);
  if (is_infinite(left.max)) return left;
  if (params.top_k > 0) left = keep_top_k(left, params.top_k, scratch);
  if (params.top_p < 1) left = keep_top_p(left, params.top_p, scratch);
  if (params.min_p > 0) left = keep_min_p(left, params.min_p, scratch);
  return left;
}

Candidate arg_max(const float* logits, int n) { return sample_row(logits, n, 0, {0, 1, 0, 0, 0, 0, 0}); }

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
  const Candidates left = filter_row(logits, n, params, divide_scratch(scratch_bytes, n));
  return is_infinite(left.max) ? arg_max(logits, n) : best_of(left, params);
}

Distribution distribution(const float* logits, int n, const SampleParams& params, uint8_t* scratch_bytes, int32_t* ids,
                          uint64_t* masses) {
  const Candidates left = filter_row(logits, n, params, divide_scratch(scratch_bytes, n));
  Distribution result{ids, masses, 0, 0};
  const auto append = [&](int32_t id, uint64_t mass) {
    ids[result.n] = id;
    masses[result.n++] = mass;
    result.total += mass;
  };
  if (is_infinite(left.max)) {
    const Candidate best = arg_max(logits, n);
    if (best.id >= 0) append(best.id, kOneMass);
    return result;
  }
  const Weight weight{true, left.max};
  for (int i = 0; i < left.n; i += 16) {
    const int count = lanes_left(left.n, i);
    uint64_t weights[16];
    weight.of(load_n(left.x + i, count), weights);
    for (int j = 0; j < count; j++) {
      if (weights[j] != 0) append(left.ids == nullptr ? i + j : left.ids[i + j], weights[j]);
    }
  }
  return result;
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
