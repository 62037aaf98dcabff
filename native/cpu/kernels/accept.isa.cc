// The accept rules of speculative decoding, and draws from a distribution.
//
// Probabilities are compared and summed as integers in units of 1 / (P Q), with P = p.total and Q = q.total: p(x) is
// mass_p(x) * Q and q(x) is mass_q(x) * P, below 2^108 each, and a sum over the vocabulary is at most P Q < 2^128. So
// no result depends on an order, a shard or an instruction set. The running product of `block` is a double made by
// division, multiplication and comparison alone, whose results IEEE 754 fixes; it enters the sums as a multiple of
// 2^-64. Only the noise and the logarithm of a draw are in single precision.
#include <cstdint>
#include <cstring>

#include "cpu/kernels/best_candidate.h"
#include "cpu/kernels/gumbel.h"
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/team.h"
#include "cpu/kernels/wide_int.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

// Arg-max of ln(weight) + noise. Weights are offered by ascending id and lie in [1, most]. They are gathered in blocks
// of kNoiseIds ids, which share one call of Philox.
class WeightedDraw {
 public:
  WeightedDraw(const SampleParams& address, WideInt most)
      : address_(address), unit_(as_f64(static_cast<uint64_t>(1023 - num_bits(most | 1)) << 52)) {}

  void offer(int32_t id, WideInt weight) {
    if (id - base_ >= kNoiseIds) {
      take();
      base_ = id / kNoiseIds * kNoiseIds;
    }
    // In [2^-128, 1]: an fp32 denormal at least, so never rounded to 0.
    weights_[id - base_] = static_cast<float>(to_double(weight) * unit_);
  }

  // {-inf, -1} when nothing was offered.
  Candidate result() {
    take();
    return best_.result();
  }

 private:
  static double as_f64(uint64_t bits) {
    double value;
    std::memcpy(&value, &bits, 8);
    return value;
  }

  // Takes the gathered block into the arg-max. Ids that were not offered have weight 0, so ln(weight) + noise is -inf.
  void take() {
    F32x16 largest = zero();
    for (int i = 0; i < kNoiseIds; i += 16) largest = max(largest, load(weights_ + i));
    I32x16 words[4];
    random_words(address_, base_, words);
    if (may_win(log1(reduce_max(largest)), words, reached_)) {
      float noise[kNoiseIds];
      gumbel_noise(words, noise);
      for (int i = 0; i < kNoiseIds; i += 16) {
        int32_t ids[16];
        for (int lane = 0; lane < 16; lane++) ids[lane] = base_ + i + lane;
        best_.take(log(load(weights_ + i)) + load(noise + i), load_i32(ids), 16);
      }
      reached_ = best_.result().value;
    }
    std::memset(weights_, 0, sizeof(weights_));
  }

  const SampleParams& address_;
  double unit_;
  BestCandidate best_;
  float reached_ = -__builtin_inff();
  int32_t base_ = 0;
  float weights_[kNoiseIds] = {0};
};

// Index of the first of the ids that is not below `id`.
int first_from(const Distribution& d, int32_t id) {
  int begin = 0, end = d.n;
  while (begin < end) {
    const int middle = begin + (end - begin) / 2;
    if (d.ids[middle] < id) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

// Mass of an id; 0 if the distribution lacks it.
uint64_t mass_of(const Distribution& d, int32_t id) {
  const int i = first_from(d, id);
  return i < d.n && d.ids[i] == id ? d.masses[i] : 0;
}

// p(x) and q(x) of draft j, in units of 1 / (P Q).
struct Odds {
  WideInt p, q;
  Odds(const AcceptArgs& args, int j)
      : p(WideInt{mass_of(args.p[j], args.drafts[j])} * args.q[j].total),
        q(WideInt{mass_of(args.q[j], args.drafts[j])} * args.p[j].total) {}
};

// A factor in [0, 1], as a multiple of 2^-64.
class Fraction {
 public:
  explicit Fraction(double value)
      : is_one_(value >= 1), fraction_(is_one_ ? 0 : static_cast<uint64_t>(value * 0x1p64)) {}
  WideInt of(WideInt x) const { return is_one_ ? x : fraction_of(fraction_, x); }
  bool is_above(uint64_t coin) const { return is_one_ || coin < fraction_; }

 private:
  bool is_one_;
  uint64_t fraction_;
};

// Calls visit(id, weight) by ascending id for each id of `part` of p, with weight max(0, share * p(x) - q(x)).
template <typename Visit>
inline void each_residual(const Distribution& p, Share part, const Distribution& q, Fraction share, Visit visit) {
  if (part.begin == part.end) return;
  const int first = first_from(q, p.ids[part.begin]);
  const int32_t* q_ids = q.ids + first;
  const int32_t* const q_end = q.ids + q.n;
  const uint64_t* q_masses = q.masses + first;
  const uint64_t p_total = p.total, q_total = q.total;
  for (int64_t i = part.begin; i < part.end; i++) {
    const int32_t id = p.ids[i];
    for (; q_ids != q_end && *q_ids < id; q_ids++) q_masses++;
    const WideInt of_p = share.of(WideInt{p.masses[i]} * q_total);
    const WideInt of_q = q_ids != q_end && *q_ids == id ? WideInt{*q_masses} * p_total : 0;
    visit(id, of_p > of_q ? of_p - of_q : 0);
  }
}

// What the threads of a team tell each other.
struct Shared {
  WideInt* sums;          // [kMaxDrafts, team size]
  Candidate* candidates;  // [team size]

  Shared(uint8_t* scratch, int size)
      : sums(reinterpret_cast<WideInt*>(scratch)), candidates(reinterpret_cast<Candidate*>(sums + kMaxDrafts * size)) {}
};

// Sum of the residual, on every thread. sums: [team size]
WideInt residual_sum(const Distribution& p, const Distribution& q, Fraction share, WideInt* sums, const Team& team) {
  WideInt sum = 0;
  each_residual(p, part_of(p.n, team), q, share, [&](int32_t, WideInt weight) { sum += weight; });
  if (team.size == 1) return sum;
  sums[team.tid] = sum;
  meet(team);
  sum = 0;
  for (int i = 0; i < team.size; i++) sum += sums[i];
  return sum;
}

int32_t draw_residual(const Distribution& p, const Distribution& q, Fraction share, const SampleParams& address,
                      Candidate* candidates, const Team& team) {
  WeightedDraw drawn(address, WideInt{p.total} * q.total);
  each_residual(p, part_of(p.n, team), q, share, [&](int32_t id, WideInt weight) {
    if (weight != 0) drawn.offer(id, weight);
  });
  return best_of_team(drawn.result(), candidates, team).id;
}

int32_t draw_from(const Distribution& from, const SampleParams& address, Candidate* candidates, const Team& team) {
  if (from.n == 0) return -1;
  WeightedDraw drawn(address, from.total);
  const Share part = part_of(from.n, team);
  for (int64_t i = part.begin; i < part.end; i++) drawn.offer(from.ids[i], from.masses[i]);
  return best_of_team(drawn.result(), candidates, team).id;
}

// Writes coins[j] of each draft, uniform in 0 … 2^64 - 1.
void toss(const AcceptArgs& args, uint64_t coins[kMaxDrafts]) {
  for (int first = 0; first < args.num_drafts; first += 16) {
    int32_t positions[16];
    for (int i = 0; i < 16; i++) positions[i] = static_cast<int32_t>(args.position + static_cast<uint32_t>(first + i));
    const I32x16 counter[4] = {set1_i32(0), load_i32(positions),
                               set1_i32(stream_word(NoiseStream::accept, args.sample_index)),
                               set1_i32(static_cast<int32_t>(args.round))};
    I32x16 words[4];
    philox(counter, args.seed, words);
    int32_t high[16], low[16];
    store_i32(high, words[0]);
    store_i32(low, words[1]);
    for (int i = 0; i < 16 && first + i < args.num_drafts; i++)
      coins[first + i] = uint64_t{static_cast<uint32_t>(high[i])} << 32 | static_cast<uint32_t>(low[i]);
  }
}

// The accepted drafts, and the factor of p in the residual of the row after them.
struct Prefix {
  int num_accepted;
  double share;
};

// Accepts draft x with probability min(1, p(x) / q(x)), up to the first rejected one. A rejected x has p(x) < q(x), so
// some other id has p > q, and the residual is not empty.
Prefix standard(const AcceptArgs& args, const uint64_t* coins) {
  for (int j = 0; j < args.num_drafts; j++) {
    const Odds odds(args, j);
    if (!is_below(coins[j], odds.p, odds.q)) return {j, 1};
  }
  return {args.num_drafts, 1};
}

// Accepts the longest prefix of i drafts whose own coin, coins[i - 1], is below
//   h_i = S_i / (S_i + 1 - r_i),  h_K = r_K,  S_i = sum of max(0, r_i p(x) - q(x)) after i drafts,
//   r_0 = 1, r_i = min(1, r_{i-1} p(x_i) / q(x_i)).
// The residual after the prefix is not empty. An accepted prefix of i < K has S_i > 0, since no coin is below 0. If
// none is accepted, p and q differ in row 0: otherwise r_i = 1 while the rows are equal, integer for integer, and the
// first i whose row differs, or K, has h_i = 1 and is accepted.
Prefix block(const AcceptArgs& args, const uint64_t* coins, const Shared& shared, const Team& team) {
  double products[kMaxDrafts + 1] = {1};
  for (int j = 0; j < args.num_drafts; j++) {
    const Odds odds(args, j);
    const double product = products[j] == 0 || odds.p == 0 ? 0 : products[j] * (to_double(odds.p) / to_double(odds.q));
    products[j + 1] = product < 1 ? product : 1;
  }
  for (int i = args.num_drafts; i > 0; i--) {
    const Fraction share(products[i]);
    if (i == args.num_drafts) {
      if (share.is_above(coins[i - 1])) return {i, 1};
      continue;
    }
    const WideInt sum = residual_sum(args.p[i], args.q[i], share, shared.sums + i * team.size, team);
    const WideInt one = WideInt{args.p[i].total} * args.q[i].total;
    if (is_below(coins[i - 1], sum, sum + (one - share.of(one)))) return {i, products[i]};
  }
  return {0, 1};
}

}  // namespace

int64_t accept_scratch_bytes(int num_threads) {
  return num_threads * static_cast<int64_t>(kMaxDrafts * sizeof(WideInt) + sizeof(Candidate));
}

int32_t draw(const Distribution& from, const SampleParams& address, uint8_t* scratch, const Team& team) {
  return draw_from(from, address, Shared(scratch, team.size).candidates, team);
}

Accepted accept_drafts(const AcceptArgs& args, uint8_t* scratch, const Team& team) {
  const Shared shared(scratch, team.size);
  uint64_t coins[kMaxDrafts];
  toss(args, coins);
  const Prefix prefix = args.rule == AcceptRule::standard ? standard(args, coins) : block(args, coins, shared, team);
  const int a = prefix.num_accepted;
  SampleParams address{};
  address.seed = args.seed;
  address.position = args.position + static_cast<uint32_t>(a);
  address.sample_index = args.sample_index;
  address.stream = NoiseStream::residual;
  address.round = args.round;
  if (a == args.num_drafts) return {a, draw_from(args.p[a], address, shared.candidates, team)};
  return {a, draw_residual(args.p[a], args.q[a], Fraction(prefix.share), address, shared.candidates, team)};
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
