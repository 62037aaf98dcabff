// Log-probabilities of rows: log-softmax of raw logits, the likeliest tokens, and the rank of a token. The normalizer
// is a sum of integers, which does not depend on their order. One block per row. NaN counts as -inf.
#include "cuda/check.h"
#include "cuda/kernels/accept_wide.h"
#include "cuda/kernels/sample_select.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kFew = 64;  // likeliest tokens that find their places by comparing with all others

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

template <typename KeyAt>
__device__ bool is_before(int32_t a, int32_t b, KeyAt key_at) {
  const uint32_t key = key_at(a), other = key_at(b);
  return key > other || (key == other && a < b);
}

// sorted [count] = ids [count] in order, all ids distinct. By all threads of a block.
template <typename KeyAt>
__device__ void place_few(const int32_t* ids, int count, int32_t* sorted, KeyAt key_at) {
  if (static_cast<int>(threadIdx.x) < count) {
    const int32_t id = ids[threadIdx.x];
    int place = 0;
    for (int i = 0; i < count; i++) place += is_before(ids[i], id, key_at);
    sorted[place] = id;
  }
  __syncthreads();
}

// Sorts ids [count], all distinct, in place: a bitonic network whose merges begin with a mirrored step, so that all
// steps put the earlier of a pair first and count need not be a power of two. By all threads of a block.
template <typename KeyAt>
__device__ void sort_many(int32_t* ids, int count, KeyAt key_at) {
  for (int size = 2; size < 2 * count; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      const bool mirrors = stride == size / 2;
      const int num_pairs = (count + 2 * stride - 1) / (2 * stride) * stride;
      for (int pair = threadIdx.x; pair < num_pairs; pair += kThreads) {
        const int begin = pair / stride * 2 * stride, offset = pair % stride;
        const int first = begin + offset, second = mirrors ? begin + size - 1 - offset : first + stride;
        if (second >= count) continue;
        const int32_t a = ids[first], b = ids[second];
        if (!is_before(b, a, key_at)) continue;
        ids[first] = b;
        ids[second] = a;
      }
      __syncthreads();
    }
  }
}

// ids [count] = the first of logits [n] in the order of value descending, then id ascending; 1 <= count <= n.
__device__ void find_likeliest(const float* logits, int n, int count, int32_t* ids) {
  NDS_CUT_BUFFERS(buffers);
  SIMT_SHARED_ARRAY(int32_t, few, kFew);
  SIMT_SHARED_ARRAY(int, num_kept, 1);
  Elements elements{logits, n, 1, nullptr, nullptr};
  const auto key_at = [elements](int id) { return elements.key_of_id(id); };
  int32_t* const kept = count <= kFew ? few : ids;
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
  if (count <= kFew) {
    place_few(few, count, ids, key_at);
  } else {
    sort_many(ids, count, key_at);
  }
}

__device__ int rank_of(const float* logits, int n, int32_t token, float own) {
  int count = 0;
  for (int i = threadIdx.x; i < n; i += kThreads) {
    const float x = number(logits[i]);
    count += x > own || (x == own && i < token);
  }
  return 1 + static_cast<int>(block_sum_wide<kThreads>(static_cast<uint64_t>(count)));
}

__global__ void __launch_bounds__(kThreads) log_probabilities_kernel(LogprobArgs args) {
  const int r = blockIdx.x;
  const int32_t first = args.cu_entries[r];
  const int n = args.cu_entries[r + 1] - first - 1;
  const LogitRow row = args.batch.rows[r];
  if (n < 0 || row.row < 0) return;
  const int32_t token = is_sampled(row) ? args.tokens[r] : row.target;
  if (token < 0 || token >= args.vocab_size) return;
  const float* const logits = args.logits + r * args.ld;
  const Normalizer normalizer = normalizer_of(logits, args.vocab_size);
  int32_t* const ids = args.ids + first;
  if (n > 0) find_likeliest(logits, args.num_drawable, n, ids + 1);
  const float own = number(logits[token]);
  const int rank = rank_of(logits, args.num_drawable, token, own);
  if (threadIdx.x == 0) {
    args.ranks[r] = rank;
    ids[0] = token;
  }
  for (int i = threadIdx.x; i <= n; i += kThreads)
    args.logprobs[first + i] = normalizer.logprob(number(logits[i == 0 ? token : ids[i]]));
}

}  // namespace

void log_probabilities(const LogprobArgs& args, cudaStream_t stream) {
  if (args.batch.num_rows == 0) return;
  const simt::LaunchShape shape{dim3(static_cast<unsigned>(args.batch.num_rows)), dim3(kThreads), 0, stream};
  check(simt::launch(log_probabilities_kernel, shape, args), "log-probabilities");
}

}  // namespace nds::cuda
