// Log-probabilities of a row: log-softmax of raw logits, whose normalizer is a sum of integers and so depends on no
// order, and the likeliest tokens.
#include <cstdint>
#include <cstring>

#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/simd.h"
#include "cpu/kernels/wide_int.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

constexpr double kLn2 = 0.693147180559945309417232121458;

float infinity() { return __builtin_inff(); }
int lanes_at(int n, int i) { return n - i < 16 ? n - i : 16; }
int clamp_lanes(int n) { return n < 0 ? 0 : n < 16 ? n : 16; }

// x with NaN replaced by -inf.
F32x16 numbers(F32x16 x) { return select(eq(x, x), x, set1(-infinity())); }

// Sum of the masses round(exp(x - largest) * 2^44). They are integers, so that no order changes the sum. x = largest
// has mass 2^44 even where both are infinite.
WideInt mass_of(const float* logits, int n, float largest) {
  constexpr int kPart = 1 << 18;      // ids per part, whose masses sum to at most 2^62
  constexpr double kToBits = 0x1p52;  // d + 2^52 has the rounded d in its lowest bits
  constexpr uint64_t kBias = uint64_t{1075} << 52;
  WideInt sum = 0;
  for (int begin = 0; begin < n; begin += kPart) {
    const int end = n - begin < kPart ? n : begin + kPart;
    uint64_t lanes[16] = {0};
    for (int i = begin; i < end; i += 16) {
      const int count = lanes_at(end, i);
      const F32x16 x = numbers(load_n(logits + i, count));
      const F32x16 distance = select(eq(x, set1(largest)), zero(), x - set1(largest));
      float masses[16];
      store(masses, select(first_n(count), exp(distance) * set1(0x1p44f), zero()));
      double shifted[16];
      uint64_t bits_of_masses[16];
      // Loops over `count`, not 16, which compilers keep as loops and turn into vectors.
      for (int lane = 0; lane < count; lane++) shifted[lane] = static_cast<double>(masses[lane]) + kToBits;
      std::memcpy(bits_of_masses, shifted, sizeof(shifted));
      for (int lane = 0; lane < count; lane++) lanes[lane] += bits_of_masses[lane] - kBias;
    }
    for (const uint64_t lane : lanes) sum += lane;
  }
  return sum;
}

// ln(sum * 2^-44) of a sum that is not 0.
double log_of_mass(WideInt sum) {
  const double value = to_double(sum);
  uint64_t bits_of_value;
  std::memcpy(&bits_of_value, &value, 8);
  // value = m * 2^e with m in [sqrt(1/2), sqrt(2)).
  constexpr uint64_t kSqrtHalf = 0x3fe6a09e667f3bcdull;
  const uint64_t from_sqrt_half = bits_of_value - kSqrtHalf;
  const int e = static_cast<int>(from_sqrt_half >> 52);
  const uint64_t bits_of_m = (from_sqrt_half & ((uint64_t{1} << 52) - 1)) + kSqrtHalf;
  double m;
  std::memcpy(&m, &bits_of_m, 8);
  // ln(1 + f) = 2 atanh(s) with s = f / (2 + f), |s| <= 0.172; the series in z = s^2 is cut below 2^-53.
  const double f = m - 1, s = f / (2 + f), z = s * s;
  double series = 0;
  for (int k = 10; k >= 0; k--) series = series * z + 1.0 / (2 * k + 1);
  return (e - 44) * kLn2 + 2 * s * series;
}

// Top n of values offered by ascending id: value descending, then id ascending.
class Likeliest {
 public:
  Likeliest(float* values, int32_t* ids, int n) : values_(values), ids_(ids), n_(n) {}

  // Offers the first `count` lanes of x, whose ids start at `id`.
  void offer(F32x16 x, int32_t id, int count) {
    if (n_ == 0) return;
    uint32_t lanes = bits((is_full() ? lt(set1(values_[n_ - 1]), x) : first_n(16)) & first_n(count));
    if (lanes == 0) return;
    float values[16];
    store(values, x);
    for (; lanes != 0; lanes &= lanes - 1) {
      const int lane = __builtin_ctz(lanes);
      insert(values[lane], id + lane);
    }
  }

 private:
  bool is_full() const { return num_ == n_; }

  void insert(float value, int32_t id) {
    if (is_full() && !(values_[n_ - 1] < value)) return;
    int place = is_full() ? n_ - 1 : num_++;
    for (; place > 0 && values_[place - 1] < value; place--) {
      values_[place] = values_[place - 1];
      ids_[place] = ids_[place - 1];
    }
    values_[place] = value;
    ids_[place] = id;
  }

  float* values_;
  int32_t* ids_;
  int n_, num_ = 0;
};

}  // namespace

// Reads the logits twice: for what depends on their order, and for the normalizer.
int32_t log_probabilities(const LogprobArgs& args) {
  const float own = args.logits[args.token] == args.logits[args.token] ? args.logits[args.token] : -infinity();
  Likeliest likeliest(args.logprobs + 1, args.ids + 1, args.num_likeliest);
  F32x16 largest_lanes = set1(-infinity());
  int32_t rank = 1;
  for (int i = 0; i < args.vocab_size; i += 16) {
    const int count = lanes_at(args.vocab_size, i), num_drawable = clamp_lanes(args.num_drawable - i);
    const F32x16 x = select(first_n(count), numbers(load_n(args.logits + i, count)), set1(-infinity()));
    largest_lanes = max(largest_lanes, x);
    if (num_drawable == 0) continue;
    // Ids above the token in likelihood: of equals, those before it.
    const Mask16 above = lt(set1(own), x) | (eq(set1(own), x) & first_n(clamp_lanes(args.token - i)));
    rank += __builtin_popcount(bits(above & first_n(num_drawable)));
    likeliest.offer(x, i, num_drawable);
  }
  args.ids[0] = args.token;
  args.logprobs[0] = own;

  const float largest = reduce_max(largest_lanes);
  const bool none = largest == -infinity();
  const double log_sum = none ? 0 : log_of_mass(mass_of(args.logits, args.vocab_size, largest));
  for (int i = 0; i <= args.num_likeliest; i++) {
    float& x = args.logprobs[i];
    const double distance = x == largest ? 0 : static_cast<double>(x) - static_cast<double>(largest);
    x = none || !(x > -infinity()) ? -infinity() : static_cast<float>(distance - log_sum);
  }
  return rank;
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
