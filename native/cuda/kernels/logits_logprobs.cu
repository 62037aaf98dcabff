// Log-probabilities of rows: log-softmax of raw logits, the likeliest tokens, and the rank of a token. The normalizer
// is a sum of integers, which does not depend on their order. One block per row. NaN counts as -inf.
#include "cuda/check.h"
#include "cuda/kernels/accept_wide.h"
#include "cuda/kernels/sample_select.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 512, kMost = 64;  // max likeliest tokens

__device__ inline float number(float x) { return x == x ? x : -infinity(); }

// round(exp(x - largest) * 2^44), ties to even; 2^44 for x == largest, also where that is infinite.
__device__ uint64_t mass_beside(float x, float largest) {
  const float distance = x == largest ? 0 : __fsub_rn(x, largest);
  const float scaled = __fmul_rn(exact_exp(distance), 17592186044416.0f);
  const double shifted = __dadd_rn(static_cast<double>(scaled), 4503599627370496.0);  // 2^52: rounds to integers
  uint64_t bits;
  memcpy(&bits, &shifted, 8);
  return bits - (uint64_t{1075} << 52);
}

// ln(sum * 2^-44) of a sum that is not 0: operation by operation that of cpu/kernels/log_probabilities.isa.cc.
__device__ double log_of_mass(WideInt sum) {
  const double value = to_double(sum);
  uint64_t bits;
  memcpy(&bits, &value, 8);
  constexpr uint64_t kSqrtHalf = 0x3fe6a09e667f3bcdull;
  const uint64_t from_sqrt_half = bits - kSqrtHalf;
  const int e = static_cast<int>(from_sqrt_half >> 52);
  const uint64_t bits_of_m = (from_sqrt_half & ((uint64_t{1} << 52) - 1)) + kSqrtHalf;
  double m;
  memcpy(&m, &bits_of_m, 8);
  const double f = __dsub_rn(m, 1), s = __ddiv_rn(f, __dadd_rn(2, f)), z = __dmul_rn(s, s);
  double series = 0;
  for (int k = 10; k >= 0; k--) series = __dadd_rn(__dmul_rn(series, z), __ddiv_rn(1.0, 2 * k + 1));
  return __dadd_rn(__dmul_rn(e - 44, 0.693147180559945309417232121458), __dmul_rn(__dmul_rn(2, s), series));
}

struct Normalizer {
  float largest;
  double log_sum;
  __device__ float logprob(float x) const {
    if (!(x > -infinity())) return -infinity();
    const double distance = x == largest ? 0 : __dsub_rn(static_cast<double>(x), static_cast<double>(largest));
    return static_cast<float>(__dsub_rn(distance, log_sum));
  }
};

__device__ Normalizer normalizer_of(const float* logits, int n) {
  const float largest = block_arg_max<kThreads>(logits, n).value;
  WideInt sum = 0;
  if (largest > -infinity()) {
    for (int i = threadIdx.x; i < n; i += kThreads) sum += mass_beside(number(logits[i]), largest);
  }
  sum = block_sum_wide<kThreads>(sum);
  return {largest, sum == 0 ? 0 : log_of_mass(sum)};
}

// ids [count] = the first of logits [n] in the order of value descending, then id ascending; 1 <= count <= n.
__device__ void find_likeliest(const float* logits, int n, int count, int32_t* ids) {
  NDS_CUT_BUFFERS(buffers);
  SIMT_SHARED_ARRAY(int32_t, kept, kMost);
  SIMT_SHARED_ARRAY(int, num_kept, 1);
  Elements elements{logits, n, 1, nullptr, nullptr};
  const auto key_at = [elements](int id) { return elements.key_of_id(id); };
  const Cut cut = find_cut<kThreads>(
      elements, buffers, Cut{0, 0, false}, [](uint32_t) { return uint64_t{1}; },
      [](uint32_t key) { return static_cast<int>(key >> 21); },
      [count](uint64_t) { return static_cast<uint64_t>(count); });
  const int last = last_equal<kThreads>(n, cut, key_at);
  if (threadIdx.x == 0) num_kept[0] = 0;
  __syncthreads();
  elements.each<kThreads>([&](uint32_t key, int id) {
    if (key > cut.key || (key == cut.key && id <= last)) kept[atomicAdd(num_kept, 1)] = id;
  });
  __syncthreads();
  // There are at most kMost: each finds its place by comparing with all.
  if (static_cast<int>(threadIdx.x) < count) {
    const int32_t id = kept[threadIdx.x];
    const uint32_t key = key_at(id);
    int place = 0;
    for (int i = 0; i < count; i++) {
      const uint32_t other = key_at(kept[i]);
      place += other > key || (other == key && kept[i] < id);
    }
    ids[place] = id;
  }
  __syncthreads();
}

__device__ int rank_of(const float* logits, int n, int32_t token, float own) {
  int count = 0;
  for (int i = threadIdx.x; i < n; i += kThreads) {
    const float x = number(logits[i]);
    count += x > own || (x == own && i < token);
  }
  return 1 + static_cast<int>(block_sum_wide<kThreads>(static_cast<uint64_t>(count)));
}

__device__ int num_reported(const LogitRow& row, const DeviceParams& p) {
  if (row.row < 0) return -1;
  if (row.kind == static_cast<int32_t>(LogitRowKind::sample)) return p.num_logprobs;
  return row.kind == static_cast<int32_t>(LogitRowKind::prompt_logprobs) ? p.num_prompt_logprobs : -1;
}

__global__ void __launch_bounds__(kThreads) log_probabilities_kernel(LogprobArgs args) {
  SIMT_SHARED_ARRAY(int32_t, likeliest, kMost);
  const int r = blockIdx.x;
  const LogitRow row = args.batch.rows[r];
  if (row.row < 0) return;
  const int32_t token = is_sampled(row) ? args.tokens[r] : row.target;
  const int wanted = num_reported(row, args.batch.slots[row.slot].params);
  if (wanted < 0 || token < 0 || token >= args.vocab_size) return;
  const int n = min(min(wanted, kMost), min(args.ld_out - 1, args.num_drawable));
  const float* const logits = args.logits + r * args.ld;
  const Normalizer normalizer = normalizer_of(logits, args.vocab_size);
  if (n > 0) find_likeliest(logits, args.num_drawable, n, likeliest);
  const float own = number(logits[token]);
  const int rank = rank_of(logits, args.num_drawable, token, own);
  if (threadIdx.x == 0) args.ranks[r] = rank;
  for (int i = threadIdx.x; i <= n; i += kThreads) {
    const int32_t id = i == 0 ? token : likeliest[i - 1];
    args.ids[int64_t{r} * args.ld_out + i] = id;
    args.logprobs[int64_t{r} * args.ld_out + i] = normalizer.logprob(number(logits[id]));
  }
}

}  // namespace

void log_probabilities(const LogprobArgs& args, cudaStream_t stream) {
  if (args.batch.num_rows == 0) return;
  const simt::LaunchShape shape{dim3(static_cast<unsigned>(args.batch.num_rows)), dim3(kThreads), 0, stream};
  check(simt::launch(log_probabilities_kernel, shape, args), "log-probabilities");
}

}  // namespace nds::cuda
