// The accept rules of speculative decoding, one block per round. The arithmetic is that of cpu/kernels/accept.isa.cc,
// which has the reasons: with P the total of p and Q that of q, p(x) and q(x) are the integers mass_p(x) * Q and
// mass_q(x) * P, so that sums over the vocabulary do not depend on their order.
#include "cuda/check.h"
#include "cuda/kernels/accept_draw.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 512;

// p and q after j drafts.
struct Pair {
  const uint64_t* p_masses;
  const uint64_t* q_masses;  // null: all mass on `draft`
  int32_t draft;
  int num_ids;  // length of p; a draft that the plan offers may have a larger id
  uint64_t p_total, q_total;

  __device__ WideInt p(int id) const { return id < num_ids ? WideInt{p_masses[id]} * q_total : 0; }
  __device__ WideInt q(int id) const {
    return WideInt{q_masses != nullptr ? q_masses[id] : id == draft ? kOneMass : 0} * p_total;
  }
};
__device__ Pair pair_at(const Round& round, const int32_t* drafts, int num_ids, int j) {
  const bool is_drawn = round.q_masses != nullptr;
  return {round.p_masses + int64_t{j} * num_ids,
          is_drawn ? round.q_masses + int64_t{j} * num_ids : nullptr,
          drafts[j],
          num_ids,
          round.p_totals[j],
          is_drawn ? round.q_totals[j] : kOneMass};
}

// A factor from 0 to 1.
struct Share {
  bool is_one;
  uint64_t fraction;  // in units of 2^-64

  __device__ WideInt of(WideInt x) const { return is_one ? x : fraction_of(fraction, x); }
  __device__ bool is_above(uint64_t coin) const { return is_one || coin < fraction; }
};
__device__ Share share_of(double value) {
  const bool is_one = value >= 1;
  return {is_one, is_one ? 0 : static_cast<uint64_t>(__dmul_rn(value, 18446744073709551616.0))};
}

// max(0, share * p(x) - q(x))
__device__ WideInt residual(const Pair& pair, const Share& share, int id) {
  const WideInt of_p = share.of(pair.p(id)), of_q = pair.q(id);
  return of_p > of_q ? of_p - of_q : 0;
}

// The coin of the draft at `position`, uniform in 0 … 2^64 - 1.
__device__ uint64_t toss(const DeviceParams& params, int32_t position, int32_t round) {
  uint32_t words[4];
  philox(address_of(params, NoiseStream::accept, position, round), 0, words);
  return uint64_t{words[0]} << 32 | words[1];
}

// The number of accepted drafts, and the share of p in the residual of the row after them.
struct Prefix {
  int num_accepted;
  double share;
};

// Rule `standard`: accepts draft x with probability min(1, p(x) / q(x)), up to the first rejection. `accepted`
// [num_drafts] is shared memory.
__device__ Prefix standard(const Round& round, const DeviceParams& params, const int32_t* drafts, int num_ids,
                           int32_t* accepted) {
  for (int j = threadIdx.x; j < round.num_drafts; j += kThreads) {
    const Pair pair = pair_at(round, drafts, num_ids, j);
    accepted[j] = is_below(toss(params, round.position + j, round.position), pair.p(drafts[j]), pair.q(drafts[j]));
  }
  __syncthreads();
  int a = 0;
  while (a < round.num_drafts && accepted[a] != 0) a++;
  return {a, 1};
}

// Rule `block`: accepts the longest prefix whose coin falls below h_i (cpu/kernels/accept.isa.cc). `products`
// [num_drafts + 1] and `ratios` [num_drafts] are shared memory.
__device__ Prefix block(const Round& round, const DeviceParams& params, const int32_t* drafts, int num_ids,
                        double* products, double* ratios) {
  for (int j = threadIdx.x; j < round.num_drafts; j += kThreads) {
    const Pair pair = pair_at(round, drafts, num_ids, j);
    const WideInt p = pair.p(drafts[j]);
    ratios[j] = p == 0 ? 0 : __ddiv_rn(to_double(p), to_double(pair.q(drafts[j])));
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    products[0] = 1;
    for (int j = 0; j < round.num_drafts; j++) {
      const double product = products[j] == 0 || ratios[j] == 0 ? 0 : __dmul_rn(products[j], ratios[j]);
      products[j + 1] = product < 1 ? product : 1;
    }
  }
  __syncthreads();
  for (int i = round.num_drafts; i > 0; i--) {
    const Share share = share_of(products[i]);
    const uint64_t coin = toss(params, round.position + i - 1, round.position);
    if (i == round.num_drafts) {
      if (share.is_above(coin)) return {i, 1};
      continue;
    }
    const Pair pair = pair_at(round, drafts, num_ids, i);
    WideInt sum = 0;
    for (int id = threadIdx.x; id < num_ids; id += kThreads) sum += residual(pair, share, id);
    sum = block_sum_wide<kThreads>(sum);
    const WideInt one = WideInt{pair.p_total} * pair.q_total;
    if (is_below(coin, sum, sum + (one - share.of(one)))) return {i, products[i]};
  }
  return {0, 1};
}

__global__ void __launch_bounds__(kThreads) accept_kernel(AcceptArgs args) {
  SIMT_SHARED_ARRAY(double, products, kMaxPlanDrafts + 1);
  SIMT_SHARED_ARRAY(double, ratios, kMaxPlanDrafts);
  SIMT_SHARED_ARRAY(int32_t, accepted, kMaxPlanDrafts);
  const Round round = args.rounds[blockIdx.x];
  const DeviceParams& params = args.slots[round.slot].params;
  const int32_t* const drafts = args.token_ids + round.first_draft;
  const Prefix prefix = args.is_block_rule ? block(round, params, drafts, args.num_ids, products, ratios)
                                           : standard(round, params, drafts, args.num_ids, accepted);
  const int a = prefix.num_accepted;
  const NoiseAddress address = address_of(params, NoiseStream::residual, round.position + a, round.position);
  int32_t token;
  if (a == round.num_drafts) {
    const uint64_t* const masses = round.p_masses + int64_t{a} * args.num_ids;
    token = block_draw<kThreads>(args.num_ids, round.p_totals[a], address,
                                 [masses](int id) { return WideInt{masses[id]}; });
  } else {
    const Pair pair = pair_at(round, drafts, args.num_ids, a);
    const Share share = share_of(prefix.share);
    token = block_draw<kThreads>(args.num_ids, WideInt{pair.p_total} * pair.q_total, address,
                                 [&](int id) { return residual(pair, share, id); });
  }
  if (threadIdx.x == 0) {
    args.num_accepted[blockIdx.x] = a;
    args.tokens[blockIdx.x] = token;
  }
}

}  // namespace

void accept_drafts(const AcceptArgs& args, cudaStream_t stream) {
  if (args.num_rounds == 0) return;
  const simt::LaunchShape shape{dim3(static_cast<unsigned>(args.num_rounds)), dim3(kThreads), 0, stream};
  check(simt::launch(accept_kernel, shape, args), "accepting drafts");
}

}  // namespace nds::cuda
