// Samples one row with filters: temperature, then top-k, top-p and min-p, each over what the previous one kept; then
// the token by Gumbel arg-max, or the remaining distribution.
//
// Top-k and top-p keep a prefix of the order "value descending, then id ascending". NaN and -inf are no candidates.
// A team divides what touches all ids: their largest, their masses, the draw or the list. What is left between these,
// to find where a prefix ends, is done by its first thread.
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/noisy_max.h"
#include "cpu/kernels/prefix_cut.h"
#include "cpu/kernels/simd.h"
#include "cpu/kernels/team.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

// What a thread found in its part of the list of a distribution.
struct alignas(64) Listed {
  int n;
  uint64_t total;
};

// A team's scratch. All offsets are multiples of 64 bytes.
struct Scratch {
  Bins* bins;             // [team size]
  Listed* listed;         // [team size]
  Candidate* candidates;  // [team size]
  Kept* kept;             // of the first thread, for all
  float* block_max;       // [blocks] largest of each block's values
  CutBuffers cut;
};

constexpr int64_t up(int64_t bytes) { return (bytes + 63) / 64 * 64; }

int64_t block_bytes(int64_t n) { return up((n + kBlockIds - 1) / kBlockIds * 4 + 64); }
int64_t team_bytes(int64_t size) {
  return size * static_cast<int64_t>(sizeof(Bins) + sizeof(Listed)) +
         up(size * static_cast<int64_t>(sizeof(Candidate))) + up(static_cast<int64_t>(sizeof(Kept)));
}

Scratch divide_scratch(uint8_t* bytes, int64_t n, int64_t size) {
  Scratch s;
  s.bins = reinterpret_cast<Bins*>(bytes);
  s.listed = reinterpret_cast<Listed*>(s.bins + size);
  s.candidates = reinterpret_cast<Candidate*>(s.listed + size);
  bytes +=
      size * static_cast<int64_t>(sizeof(Bins) + sizeof(Listed)) + up(size * static_cast<int64_t>(sizeof(Candidate)));
  s.kept = reinterpret_cast<Kept*>(bytes);
  bytes += up(static_cast<int64_t>(sizeof(Kept)));
  s.block_max = reinterpret_cast<float*>(bytes);
  bytes += block_bytes(n);
  s.cut = {reinterpret_cast<uint32_t*>(bytes + up(8 * n)), reinterpret_cast<uint64_t*>(bytes)};
  return s;
}

bool is_infinite(float x) { return x == minus_infinity() || x == -minus_infinity(); }

// The largest value of each of the blocks. It is the scaled largest logit, since division keeps the order.
void write_block_max(const ScaledRow& row, Share blocks, float* block_max) {
  for (int64_t b = blocks.begin; b < blocks.end; b++) {
    const int begin = static_cast<int>(b) * kBlockIds, end = row.end_of(static_cast<int>(b));
    F32x16 even = set1(minus_infinity()), odd = even;
    // max(a, b) is b where a is NaN, so NaN is skipped.
    if (end - begin == kBlockIds) {
      even = max(load(row.logits + begin), even);
      odd = max(load(row.logits + begin + 16), odd);
      even = max(load(row.logits + begin + 32), even);
      odd = max(load(row.logits + begin + 48), odd);
    } else {
      for (int id = begin; id < end; id += 16) {
        const int n = end - id < 16 ? end - id : 16;
        even = max(select(first_n(n), load_n(row.logits + id, n), even), even);
      }
    }
    block_max[b] = reduce_max(max(even, odd));
  }
  for (int64_t b = blocks.begin; b < blocks.end; b += 16) {
    const int n = blocks.end - b < 16 ? static_cast<int>(blocks.end - b) : 16;
    store_n(block_max + b, load_n(block_max + b, n) / set1(row.temperature), n);
  }
}

float largest_of(const float* values, int n) {
  F32x16 lanes = set1(minus_infinity());
  for (int i = 0; i < n; i += 16) {
    const int count = n - i < 16 ? n - i : 16;
    lanes = max(lanes, select(first_n(count), load_n(values + i, count), lanes));
  }
  return reduce_max(lanes);
}

// bins [kBins] = weights of what is kept in the blocks, within `reach` of the maximum.
void weigh(const ScaledRow& row, const Kept& kept, const float* block_max, Share blocks, float reach,
           const Weight& weight, Bins& bins) {
  std::memset(bins, 0, sizeof(Bins));
  each_sixteen(row, kept, block_max, blocks, reach, [&](F32x16 x, int id, Mask16 is_kept) {
    const int n = row.n - id < 16 ? row.n - id : 16;
    if (any(is_kept)) add_to_bins(select(is_kept, x, set1(minus_infinity())), n, weight, bins);
  });
}

uint64_t sum_of(const Bins& bins) {
  uint64_t sum = 0;
  for (const uint64_t bin : bins) sum += bin;
  return sum;
}

// k ids at least lie within the distance that holds the k largest of the blocks' largest: no others are looked at.
void keep_top_k(const ScaledRow& row, int top_k, const Scratch& s, Kept& kept) {
  const uint64_t k = static_cast<uint64_t>(top_k);
  const Weight weight{false, kept.max};
  Bins& bins = *s.bins;
  std::memset(bins, 0, sizeof(Bins));
  for (int b = 0; b < row.num_blocks(); b += 16) {
    const int n = row.num_blocks() - b < 16 ? row.num_blocks() - b : 16;
    add_to_bins(select(first_n(n), load_n(s.block_max + b, n), set1(minus_infinity())), n, weight, bins);
  }
  int bin = 0;
  for (uint64_t sum = bins[0]; bin < kBins - 1 && sum < k;) sum += bins[++bin];
  weigh(row, kept, s.block_max, {0, row.num_blocks()}, reach_of(bin), weight, bins);
  const uint64_t total = sum_of(bins);
  cut_prefix(row, s.block_max, weight, bins, total < k ? total : k, s.cut, kept);
}

// The shortest prefix with at least top_p of the total mass, compared as integers: top_p in units of 2^-53.
void keep_top_p(const ScaledRow& row, float top_p, const Scratch& s, Kept& kept) {
  const unsigned __int128 product =
      static_cast<unsigned __int128>(static_cast<uint64_t>(static_cast<double>(top_p) * 0x1p53)) * sum_of(*s.bins);
  const uint64_t target = static_cast<uint64_t>((product + ((uint64_t{1} << 53) - 1)) >> 53);
  cut_prefix(row, s.block_max, {true, kept.max}, *s.bins, target > 0 ? target : 1, s.cut, kept);
}

// Keeps p(x) >= min_p * max p. The normalizer cancels: exp(x - max) >= min_p, since the best has exp(0) = 1.
void keep_min_p(float min_p, Kept& kept) {
  kept.min_p = min_p;
  const float magnitude = kept.max < 0 ? -kept.max : kept.max;
  // Below this, exp(x - max) < min_p whatever the rounding errors.
  const float lowest = kept.max + log1(min_p) - (0.01f + 1e-6f * magnitude);
  if (lowest > kept.lowest) kept.lowest = lowest;
}

// What temperature and filters keep, on every thread. Its max is infinite where noise decides nothing: no candidate
// (-inf), temperature 0 (-inf), or a logit whose scaled value is +inf.
Kept filter_row(const ScaledRow& row, const SampleParams& params, const Scratch& s, const Team& team) {
  Kept kept;
  if (params.temperature == 0) return kept;
  const Share all{0, row.num_blocks()}, part = part_of(row.num_blocks(), team);
  write_block_max(row, part, s.block_max);
  meet(team);
  kept.max = largest_of(s.block_max, row.num_blocks());
  if (is_infinite(kept.max)) return kept;
  const bool has_k = params.top_k > 0 && params.top_k < row.n, has_p = params.top_p < 1;
  const Weight mass{true, kept.max};
  if (has_p && !has_k) {
    weigh(row, kept, s.block_max, part, kMasslessDistance, mass, s.bins[team.tid]);
    meet(team);
  }
  if (has_k || has_p) {
    if (team.tid == 0) {
      if (has_k) keep_top_k(row, params.top_k, s, kept);
      if (has_k && has_p) weigh(row, kept, s.block_max, all, kMasslessDistance, mass, *s.bins);
      for (int i = 1; i < team.size && !has_k; i++) {
        for (int bin = 0; bin < kBins; bin++) (*s.bins)[bin] += s.bins[i][bin];
      }
      if (has_p) keep_top_p(row, params.top_p, s, kept);
      *s.kept = kept;
    }
    meet(team);
    kept = *s.kept;
  }
  if (params.min_p > 0) keep_min_p(params.min_p, kept);
  return kept;
}

// Best of this thread's share of the logits without noise.
Candidate arg_max(const float* logits, int n, const Team& team) {
  const Share part = part_of(n, team);
  return sample_row(logits + part.begin, static_cast<int>(part.end - part.begin), static_cast<int>(part.begin),
                    {0, 1, 0, 0, 0, 0, 0});
}

// Best of this thread's share of what is kept, with noise.
Candidate best_of(const ScaledRow& row, const Kept& kept, const float* block_max, const SampleParams& params,
                  const Team& team) {
  NoisyMax best(params);
  const Share blocks = part_of(row.num_blocks(), team);
  for (int64_t b = blocks.begin; b < blocks.end; b++) {
    if (block_max[b] < kept.lowest) continue;
    const int begin = static_cast<int>(b) * kBlockIds, end = row.end_of(static_cast<int>(b));
    float x[kBlockIds];
    F32x16 largest = set1(minus_infinity());
    for (int id = begin; id < end; id += 16) {
      const F32x16 values = row.at(id);
      const F32x16 left = select(kept.of(values, id), values, set1(minus_infinity()));
      store(x + (id - begin), left);
      largest = max(largest, left);
    }
    best.take(x, begin, begin, end - begin, reduce_max(largest));
  }
  return best.result();
}

// Writes this thread's share of what is kept to ids and masses, which have room for all ids of the share.
Listed list(const ScaledRow& row, const Kept& kept, const float* block_max, Share blocks, int32_t* ids,
            uint64_t* masses) {
  const Weight weight{true, kept.max};
  Listed listed{0, 0};
  each_sixteen(row, kept, block_max, blocks, kMasslessDistance, [&](F32x16 x, int id, Mask16 is_kept) {
    const uint32_t lanes = bits(is_kept);
    if (lanes == 0) return;
    uint64_t weights[16];
    weight.of(x, weights);
    for (int j = 0; j < 16; j++) {
      if ((lanes >> j & 1) == 0 || weights[j] == 0) continue;
      ids[listed.n] = id + j;
      masses[listed.n++] = weights[j];
      listed.total += weights[j];
    }
  });
  return listed;
}

}  // namespace

int64_t filter_scratch_bytes(int n, int num_threads) {
  return team_bytes(num_threads) + block_bytes(n) + up(int64_t{8} * n) + up(int64_t{4} * n);
}

Candidate sample_filtered_row(const float* logits, int n, const SampleParams& params, uint8_t* scratch_bytes,
                              const Team& team) {
  const Scratch s = divide_scratch(scratch_bytes, n, team.size);
  const ScaledRow row{logits, n, params.temperature};
  const Kept kept = filter_row(row, params, s, team);
  const bool has_noise = !is_infinite(kept.max);
  return best_of_team(has_noise ? best_of(row, kept, s.block_max, params, team) : arg_max(logits, n, team),
                      s.candidates, team);
}

Distribution distribution(const float* logits, int n, const SampleParams& params, uint8_t* scratch_bytes, int32_t* ids,
                          uint64_t* masses, const Team& team) {
  const Scratch s = divide_scratch(scratch_bytes, n, team.size);
  const ScaledRow row{logits, n, params.temperature};
  const Kept kept = filter_row(row, params, s, team);
  Distribution result{ids, masses, 0, 0};
  if (is_infinite(kept.max)) {
    const Candidate best = best_of_team(arg_max(logits, n, team), s.candidates, team);
    if (best.id < 0) return result;
    if (team.tid == 0) {
      ids[0] = best.id;
      masses[0] = kOneMass;
    }
    result.n = 1;
    result.total = kOneMass;
    meet(team);
    return result;
  }
  const Share blocks = part_of(row.num_blocks(), team);
  const int64_t first = blocks.begin * kBlockIds;
  s.listed[team.tid] = list(row, kept, s.block_max, blocks, ids + first, masses + first);
  meet(team);
  for (int i = 0; i < team.size; i++) {
    const Listed& listed = s.listed[i];
    if (team.tid == 0 && i > 0) {
      const int64_t from = row.num_blocks() * int64_t{i} / team.size * kBlockIds;
      std::memmove(ids + result.n, ids + from, static_cast<size_t>(listed.n) * 4);
      std::memmove(masses + result.n, masses + from, static_cast<size_t>(listed.n) * 8);
    }
    result.n += listed.n;
    result.total += listed.total;
  }
  meet(team);
  return result;
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
