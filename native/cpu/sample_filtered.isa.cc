// The token of one row with filters: temperature, then top-k, top-p and min-p, each over what the one before left, then Gumbel arg-max.
//
// "In order" always means value descending, then id ascending. Nothing is sorted: a filter keeps a prefix of that order, whose last
// value is found digit by digit from histograms of order-preserving keys.
#include "cpu/gumbel.h"
#include "cpu/isa_ops.h"
#include "cpu/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

constexpr uint32_t kRemoved = 0;  // below the key of every number, -inf included

struct Row {
  int n;
  float* x;        // logits / temperature
  uint32_t* keys;  // larger = better; kRemoved = filtered out
  uint64_t* mass;  // round(exp(x - max) * 2^44): integers, so that a sum has no order
};

Row row_in(uint8_t* scratch, int n) {
  Row row;
  row.n = n;
  row.mass = reinterpret_cast<uint64_t*>(scratch);
  row.x = reinterpret_cast<float*>(scratch + int64_t{n} * 8);
  row.keys = reinterpret_cast<uint32_t*>(scratch + int64_t{n} * 12);
  return row;
}

uint32_t key_of(float x) {
  if (x != x) return kRemoved;
  const float positive_zero = x + 0.0f;
  uint32_t bits;
  std::memcpy(&bits, &positive_zero, 4);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// A prefix of the order: all keys above `key`, and `left` weight of those equal to it.
struct Cut {
  uint32_t key;
  uint64_t left;
};

// The shortest prefix whose weight reaches target (at least 1); weight 1 each without masses. The whole row when it never does.
Cut find_cut(const Row& row, const uint64_t* weights, uint64_t target) {
  uint32_t prefix = 0, prefix_mask = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    uint64_t histogram[256] = {0};
    for (int i = 0; i < row.n; i++) {
      const uint32_t key = row.keys[i];
      if (key == kRemoved || (key & prefix_mask) != prefix) continue;
      histogram[key >> shift & 255] += weights == nullptr ? 1 : weights[i];
    }
    int digit = 255;
    while (digit > 0 && histogram[digit] < target) target -= histogram[digit--];
    prefix |= static_cast<uint32_t>(digit) << shift;
    prefix_mask |= 0xffu << shift;
  }
  return {prefix, target};
}

void keep(const Row& row, const uint64_t* weights, Cut cut) {
  uint64_t taken = 0;
  for (int i = 0; i < row.n; i++) {
    if (row.keys[i] > cut.key) continue;
    const bool kept = row.keys[i] == cut.key && row.keys[i] != kRemoved && taken < cut.left;
    if (kept) {
      taken += weights == nullptr ? 1 : weights[i];
    } else {
      row.keys[i] = kRemoved;
    }
  }
}

// Scales by the temperature and fills keys; the largest value, or -inf when nothing is a number.
float scale(const Row& row, const float* logits, float temperature) {
  float max = -__builtin_inff();
  for (int i = 0; i < row.n; i += 16) {
    const int n = row.n - i < 16 ? row.n - i : 16;
    store_n(row.x + i, load_n(logits + i, n) / set1(temperature), n);
  }
  for (int i = 0; i < row.n; i++) {
    row.keys[i] = key_of(row.x[i]);
    if (row.x[i] > max) max = row.x[i];
  }
  return max;
}

void weigh(const Row& row, float max) {
  for (int i = 0; i < row.n; i += 16) {
    const int n = row.n - i < 16 ? row.n - i : 16;
    float e[16];
    store(e, exp(load_n(row.x + i, n) - set1(max)));
    for (int j = 0; j < n; j++) row.mass[i + j] = row.keys[i + j] == kRemoved ? 0 : static_cast<uint64_t>(static_cast<double>(e[j]) * 0x1p44 + 0.5);
  }
}

void keep_top_p(const Row& row, float top_p) {
  uint64_t total = 0;
  for (int i = 0; i < row.n; i++) total += row.keys[i] == kRemoved ? 0 : row.mass[i];
  // ceil(top_p * total), in integers.
  const unsigned __int128 product = static_cast<unsigned __int128>(static_cast<uint64_t>(static_cast<double>(top_p) * 0x1p53)) * total;
  const uint64_t target = static_cast<uint64_t>((product + ((uint64_t{1} << 53) - 1)) >> 53);
  keep(row, row.mass, find_cut(row, row.mass, target > 0 ? target : 1));
}

// p / p of the best >= min_p, both unnormalised: the best has exp(0) = 1.
void keep_min_p(const Row& row, float max, float min_p) {
  for (int i = 0; i < row.n; i += 16) {
    const int n = row.n - i < 16 ? row.n - i : 16;
    const uint32_t kept = bits(le(set1(min_p), exp(load_n(row.x + i, n) - set1(max))));
    for (int j = 0; j < n; j++) {
      if ((kept >> j & 1) == 0) row.keys[i + j] = kRemoved;
    }
  }
}

Candidate best_kept(const Row& row, const SampleParams& params) {
  Candidate best{-__builtin_inff(), -1};
  for (int block = 0; block < row.n; block += kNoiseIds) {
    const int end = block + kNoiseIds < row.n ? block + kNoiseIds : row.n;
    bool any_kept = false;
    for (int i = block; i < end; i++) any_kept = any_kept || row.keys[i] != kRemoved;
    if (!any_kept) continue;
    float noise[kNoiseIds];
    gumbel_noise(params, block, noise);
    for (int i = block; i < end; i++) {
      const float value = row.x[i] + noise[i - block];
      if (row.keys[i] != kRemoved && value > best.value) best = {value, i};
    }
  }
  return best;
}

}  // namespace

int64_t filter_scratch_bytes(int n) { return int64_t{n} * 16 + 64; }

Candidate sample_filtered_row(const float* logits, int n, const SampleParams& params, uint8_t* scratch) {
  if (params.temperature == 0) return sample_row(logits, n, 0, params);
  const Row row = row_in(scratch, n);
  const float max = scale(row, logits, params.temperature);
  if (params.top_k > 0 && params.top_k < n) keep(row, nullptr, find_cut(row, nullptr, static_cast<uint64_t>(params.top_k)));
  if (params.top_p < 1) {
    weigh(row, max);
    keep_top_p(row, params.top_p);
  }
  if (params.min_p > 0) keep_min_p(row, max, params.min_p);
  return best_kept(row, params);
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
