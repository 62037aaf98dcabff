// The rotary embedding on its way to the cache, and copies of blocks, against plain loops: bit for bit, except for the
// norm of heads, whose sum has another order.
#include <algorithm>
#include <numeric>

#include "cuda/kernels.h"
#include "harness.h"

namespace nds::cuda::test {
namespace {

constexpr float kNan = NAN, kInf = INFINITY;

int64_t round32(int64_t value) { return (value + 31) / 32 * 32; }

using Values = std::vector<float>;

struct Setup {
  HeadLayout heads;
  KvCache kv;
  DType dtype = DType::f32;
  bool has_norm = false;
  int rows = 0;
  int64_t ld = 0, ld_q = 0;
  Values qkv, q_weight, k_weight, cos, sin;
  std::vector<int64_t> slots;
  // Factors of queries by position / query_length, and each row's position, which may lie past them.
  Values query_scales;
  int query_length = 1;
  std::vector<int32_t> positions;
  std::vector<uint8_t> cache;
};

// Slots are -1 or distinct; the cache holds random bytes; heads start at multiples of 32 columns.
Setup random_setup(int rows, int head_dim) {
  Setup s;
  s.rows = rows;
  s.dtype = any(0, 1) == 1 ? DType::f32 : DType::bf16;
  s.has_norm = any(0, 1) == 1;
  HeadLayout& heads = s.heads;
  heads.head_dim = head_dim;
  heads.group_size = any(1, 3);
  heads.num_kv_heads = any(1, 3);
  heads.num_heads = heads.group_size * heads.num_kv_heads;
  heads.k_offset = static_cast<int>(round32(heads.num_heads * head_dim));
  heads.v_offset = heads.k_offset + static_cast<int>(round32(heads.num_kv_heads * head_dim));
  s.ld = heads.v_offset + round32(heads.num_kv_heads * head_dim);
  s.ld_q = round32(heads.num_heads * head_dim) + 32 * any(0, 1);
  KvCache& kv = s.kv;
  kv.dtype = s.dtype;
  kv.kv_dtype = any(0, 1) == 1 ? KvDtype::int8 : KvDtype::activation;
  kv.block_size = 16 * any(1, 3);
  kv.num_blocks = (rows + kv.block_size - 1) / kv.block_size + 1;
  kv.num_kv_heads = heads.num_kv_heads;
  kv.head_dim = head_dim;
  kv.tile_bytes = (2 * kv.panel_bytes() + (kv.kv_dtype == KvDtype::int8 ? 8 * kv.block_size : 0) + 15) / 16 * 16;
  kv.block_stride = kv.tile_bytes * kv.num_kv_heads;
  s.cache.resize(static_cast<size_t>(kv.block_stride) * kv.num_blocks);
  for (uint8_t& byte : s.cache) byte = static_cast<uint8_t>(any(0, 255));
  s.slots.resize(static_cast<size_t>(kv.num_blocks) * kv.block_size);
  std::iota(s.slots.begin(), s.slots.end(), 0);
  std::shuffle(s.slots.begin(), s.slots.end(), engine);
  s.slots.resize(rows);
  for (int64_t& slot : s.slots) slot = any(0, 4) == 0 ? -1 : slot;
  s.qkv = normals(rows * s.ld);
  s.q_weight = normals(head_dim);
  s.k_weight = normals(head_dim);
  for (int i = 0; i < rows * head_dim / 2; i++) {
    const double phase = any(0, 9000) * 0.37;
    s.cos.push_back(static_cast<float>(std::cos(phase)));
    s.sin.push_back(static_cast<float>(std::sin(phase)));
  }
  s.query_length = any(1, 20);
  for (int i = any(0, 3); i > 0; i--) s.query_scales.push_back(1 + 0.25f * static_cast<float>(any(0, 8)));
  for (int row = 0; row < rows; row++) s.positions.push_back(any(0, 70));
  return s;
}

struct Stored {
  std::vector<uint8_t> cache, q;
};

Stored run(const Setup& s) {
  const Device qkv(s.qkv), q_weight(s.q_weight), k_weight(s.k_weight), cos(s.cos), sin(s.sin);
  const Device slots(s.slots);
  const Device cache(s.cache);
  const Device<uint8_t> q(s.rows * s.ld_q * (s.dtype == DType::f32 ? 4 : 2));
  RopeAndStoreArgs args{};
  args.qkv = qkv.data;
  args.ld = s.ld;
  args.rows = s.rows;
  args.heads = s.heads;
  args.q_weight = s.has_norm ? q_weight.data : nullptr;
  args.k_weight = s.has_norm ? k_weight.data : nullptr;
  args.eps = 1e-6f;
  args.cos = cos.data;
  args.sin = sin.data;
  args.kv = s.kv;
  args.kv.base = cache.data;
  args.kv_slots = slots.data;
  args.q_out = q.data;
  args.ld_q = s.ld_q;
  const Device query_scales(s.query_scales.empty() ? Values{0} : s.query_scales);
  const Device positions(s.positions);
  args.query_scales = s.query_scales.empty() ? nullptr : query_scales.data;
  args.num_query_scales = static_cast<int>(s.query_scales.size());
  args.query_length = s.query_length;
  args.positions = positions.data;
  rope_and_store(args, place());
  expect_same("qkv stays", qkv.read(), s.qkv);
  return {cache.read(), q.read()};
}

// A head of qkv, rotated unless it is a value.
Values reference_head(const Setup& s, int row, int offset, const Values* weight) {
  const int half = s.heads.head_dim / 2;
  const auto first = s.qkv.begin() + row * s.ld + offset;
  Values head(first, first + 2 * half);
  if (weight == nullptr) return head;
  double squares = 0;
  for (const float value : head) squares += double{value} * value;
  const double scale = 1 / std::sqrt(squares / (2 * half) + 1e-6);
  for (int i = 0; i < 2 * half && s.has_norm; i++) head[i] = static_cast<float>(head[i] * scale * (*weight)[i]);
  for (int i = 0; i < half; i++) {
    const float a = head[i], b = head[half + i], c = s.cos[row * half + i], sine = s.sin[row * half + i];
    const float ac = a * c, bs = b * sine, bc = b * c, as = a * sine;
    head[i] = ac - bs;
    head[half + i] = bc + as;
  }
  return head;
}

// max |x| / 127, or NaN.
float int8_scale(const Values& values) {
  float most = 0;
  for (const float value : values) {
    if (!std::isfinite(value)) return kNan;
    most = std::max(most, std::fabs(value));
  }
  return most / 127;
}

// Visits a token's place in the cache: its values, and the scale of an int8 cache.
template <typename Visit>
void visit_token(const Setup& s, std::vector<uint8_t>& cache, int64_t slot, int head, bool is_value, Visit visit) {
  const KvCache& kv = s.kv;
  const int64_t offset = slot % kv.block_size;
  uint8_t* const tile = cache.data() + slot / kv.block_size * kv.block_stride + head * kv.tile_bytes;
  uint8_t* const scale = kv.kv_dtype == KvDtype::int8
                             ? tile + 2 * kv.panel_bytes() + 4 * ((is_value ? kv.block_size : 0) + offset)
                             : nullptr;
  visit(tile + (is_value ? kv.panel_bytes() : 0) + offset * kv.head_dim * kv.element_size(), scale);
}

void encode(const Setup& s, std::vector<uint8_t>& cache, int64_t slot, int head, bool is_value, const Values& values) {
  visit_token(s, cache, slot, head, is_value, [&](uint8_t* at, uint8_t* scale_at) {
    const float scale = int8_scale(values), divisor = scale > 0 ? scale : 1;
    if (scale_at != nullptr) std::memcpy(scale_at, &scale, 4);
    for (size_t i = 0; i < values.size(); i++) {
      const uint16_t half = to_bf16(values[i]);
      const float quotient = std::min(std::max(std::nearbyint(values[i] / divisor), -127.0f), 127.0f);
      if (s.kv.kv_dtype == KvDtype::int8) {
        at[i] = static_cast<uint8_t>(static_cast<int8_t>(std::isnan(scale) ? 0 : quotient));
      } else if (s.dtype == DType::bf16) {
        std::memcpy(at + 2 * i, &half, 2);
      } else {
        std::memcpy(at + 4 * i, &values[i], 4);
      }
    }
  });
}

Values decode(const Setup& s, std::vector<uint8_t>& cache, int64_t slot, int head, bool is_value) {
  Values values(s.heads.head_dim);
  visit_token(s, cache, slot, head, is_value, [&](const uint8_t* at, const uint8_t* scale_at) {
    float scale = 1;
    if (scale_at != nullptr) std::memcpy(&scale, scale_at, 4);
    for (size_t i = 0; i < values.size(); i++) {
      uint16_t half;
      std::memcpy(&half, at + (s.kv.kv_dtype == KvDtype::int8 ? 0 : i * s.kv.element_size()), 2);
      if (s.kv.kv_dtype == KvDtype::int8) {
        values[i] = static_cast<float>(static_cast<int8_t>(at[i])) * scale;
      } else if (s.dtype == DType::bf16) {
        values[i] = from_bf16(half);
      } else {
        std::memcpy(&values[i], at + 4 * i, 4);
      }
    }
  });
  return values;
}

std::vector<uint8_t> reference_q(const Setup& s) {
  Values wide(s.rows * s.ld_q, 0);
  for (int row = 0; row < s.rows; row++) {
    for (int h = 0; h < s.heads.num_heads; h++) {
      Values head = reference_head(s, row, h * s.heads.head_dim, &s.q_weight);
      const size_t index = static_cast<size_t>(s.positions[row] / s.query_length);
      if (!s.query_scales.empty())
        for (float& x : head) x *= s.query_scales[std::min(index, s.query_scales.size() - 1)];
      std::copy(head.begin(), head.end(), wide.begin() + row * s.ld_q + h * s.heads.head_dim);
    }
  }
  std::vector<uint8_t> bytes(wide.size() * (s.dtype == DType::f32 ? 4 : 2));
  for (size_t i = 0; i < wide.size(); i++) {
    const uint16_t half = to_bf16(wide[i]);
    if (s.dtype == DType::f32) std::memcpy(&bytes[4 * i], &wide[i], 4);
    if (s.dtype == DType::bf16) std::memcpy(&bytes[2 * i], &half, 2);
  }
  return bytes;
}

Values as_floats(const std::vector<uint8_t>& bytes, DType dtype) {
  Values values(bytes.size() / (dtype == DType::f32 ? 4 : 2));
  for (size_t i = 0; i < values.size(); i++) {
    uint16_t half;
    std::memcpy(&half, &bytes[2 * i], 2);
    if (dtype == DType::f32) std::memcpy(&values[i], &bytes[4 * i], 4);
    if (dtype == DType::bf16) values[i] = from_bf16(half);
  }
  return values;
}

// Checks keys and values of all rows, and that all other bytes of the cache are unchanged.
void check_cache(const Setup& s, std::vector<uint8_t> got) {
  std::vector<uint8_t> want = s.cache;
  const int head_dim = s.heads.head_dim;
  for (int row = 0; row < s.rows; row++) {
    const int64_t slot = s.slots[row];
    for (int h = 0; h < s.heads.num_kv_heads && slot >= 0; h++) {
      const Values k = reference_head(s, row, s.heads.k_offset + h * head_dim, &s.k_weight);
      encode(s, want, slot, h, true, reference_head(s, row, s.heads.v_offset + h * head_dim, nullptr));
      if (s.has_norm) {
        const float tolerance = s.kv.kv_dtype == KvDtype::int8 ? 0.51f * int8_scale(k)
                                : s.dtype == DType::bf16       ? 0.01f
                                                               : 2e-5f;
        expect_near("a key with norm", decode(s, got, slot, h, false), k, tolerance);
        encode(s, got, slot, h, false, k);
      }
      encode(s, want, slot, h, false, k);
    }
  }
  expect_same("cache", got, want);
}

}  // namespace

// Equal to libm's sin and cos in double precision after rounding to fp32, but for ties.
CUDA_TEST(rope_table) {
  const int rows = any(1, 9), half_dim = any(1, 70);
  const float scale = any(0, 1) == 1 ? 1.0f : 0.875f;
  std::vector<int32_t> positions;
  for (int i = 0; i < rows; i++) positions.push_back(any(0, 3) == 0 ? any(0, 2) : any(0, 200000));
  Values frequencies, want_cos, want_sin;
  for (int i = 0; i < half_dim; i++) frequencies.push_back(static_cast<float>(std::pow(10000.0, -1.0 * i / half_dim)));
  for (const int32_t position : positions) {
    for (const float frequency : frequencies) {
      const float phase = static_cast<float>(position) * frequency;
      want_cos.push_back(static_cast<float>(std::cos(double{phase})) * scale);
      want_sin.push_back(static_cast<float>(std::sin(double{phase})) * scale);
    }
  }
  const Device device_positions(positions);
  const Device device_frequencies(frequencies);
  const Device<float> cos(want_cos.size()), sin(want_sin.size());
  nds::cuda::rope_table({.positions = device_positions.data,
                         .rows = rows,
                         .inv_freq = device_frequencies.data,
                         .half_dim = half_dim,
                         .scale = scale,
                         .cos = cos.data,
                         .sin = sin.data},
                        place());
  expect_same("cos", cos.read(), want_cos);
  expect_same("sin", sin.read(), want_sin);
}

CUDA_TEST(rope_and_store) {
  const int head_dims[] = {2, 8, 64, 128, 2 * any(1, 40), 2 * any(129, 256)};
  const Setup s = random_setup(any(1, 6), head_dims[any(0, 5)]);
  const Stored got = run(s);
  if (s.has_norm) {
    expect_near("q with norm", as_floats(got.q, s.dtype), as_floats(reference_q(s), s.dtype),
                s.dtype == DType::f32 ? 2e-5f : 0.01f);
  } else {
    expect_same("q", got.q, reference_q(s));
  }
  check_cache(s, got.cache);
}

// A row has the same bits alone as among many, which take another grid.
CUDA_TEST(rope_and_store_many) {
  const int head_dims[] = {64, 128, 2 * any(1, 20), 2 * any(129, 140)};
  Setup s = random_setup(any(64, 70), head_dims[any(0, 3)]);
  s.has_norm = true;
  const Stored all = run(s);
  check_cache(s, all.cache);
  const int row = any(0, s.rows - 1), half = s.heads.head_dim / 2;
  Setup one = s;
  one.rows = 1;
  one.slots = {s.slots[row]};
  one.positions = {s.positions[row]};
  one.qkv = {s.qkv.begin() + row * s.ld, s.qkv.begin() + (row + 1) * s.ld};
  one.cos = {s.cos.begin() + row * half, s.cos.begin() + (row + 1) * half};
  one.sin = {s.sin.begin() + row * half, s.sin.begin() + (row + 1) * half};
  Stored alone = run(one);
  const auto first = all.q.begin() + row * static_cast<int64_t>(alone.q.size());
  expect_same("q of a row alone", alone.q, {first, first + static_cast<int64_t>(alone.q.size())});
  std::vector<uint8_t> cache = all.cache;
  for (int h = 0; h < s.heads.num_kv_heads && one.slots[0] >= 0; h++) {
    for (const bool is_value : {false, true}) {
      expect_same("KV of a row alone", decode(s, alone.cache, one.slots[0], h, is_value),
                  decode(s, cache, one.slots[0], h, is_value));
    }
  }
}

// What int8 does to ties, zeros, denormals and values that are not finite.
CUDA_TEST(rope_and_store_int8) {
  const int head_dim = 2 * any(4, 40), num_cases = 6;
  Setup s = random_setup(num_cases, head_dim);
  s.has_norm = false;
  s.kv.kv_dtype = KvDtype::int8;
  s.kv.tile_bytes = (2 * s.kv.panel_bytes() + 8 * s.kv.block_size + 15) / 16 * 16;
  s.kv.block_stride = s.kv.tile_bytes * s.kv.num_kv_heads;
  s.cache.assign(static_cast<size_t>(s.kv.block_stride) * s.kv.num_blocks, 0x55);
  std::iota(s.slots.begin(), s.slots.end(), 3);
  const float tiny = std::ldexp(1.0f, -149), at[] = {0, kInf, -kInf, kNan};
  for (int row = 0; row < num_cases; row++) {
    float* const v = &s.qkv[row * s.ld + s.heads.v_offset];
    for (int i = 0; i < head_dim * s.heads.num_kv_heads; i++) {
      if (row == 0) v[i] = i % head_dim == 0 ? -127 : 0.5f + any(-127, 126);  // scale 1: halves are ties
      if (row == 1) v[i] = any(0, 1) == 1 ? 0.0f : -0.0f;
      if (row == 2) v[i] = tiny * (i % head_dim == 0 ? 180 : any(-180, 180));  // scale 1.42 rounds to 1: clamped
    }
    if (row > 2) v[any(0, head_dim - 1)] = at[row - 2];
  }
  std::vector<uint8_t> got = run(s).cache, want = s.cache;
  for (int row = 0; row < num_cases; row++) {
    for (int h = 0; h < s.heads.num_kv_heads; h++) {
      const Values k = reference_head(s, row, s.heads.k_offset + h * head_dim, &s.k_weight);
      const Values v = reference_head(s, row, s.heads.v_offset + h * head_dim, nullptr);
      const Values stored = decode(s, got, s.slots[row], h, true);
      if (row > 2 && h == 0) {
        // NaN has many bit patterns, and the integers do not matter.
        note(std::all_of(stored.begin(), stored.end(), [](float x) { return std::isnan(x); }), "v that is not finite");
        encode(s, got, s.slots[row], h, true, v);
      }
      encode(s, want, s.slots[row], h, false, k);
      encode(s, want, s.slots[row], h, true, v);
    }
  }
  expect_same("int8 cache", got, want);
}

CUDA_TEST(copy_blocks) {
  KvCache kv;
  kv.num_blocks = any(3, 5);
  kv.block_size = 32;
  kv.num_kv_heads = any(1, 2);
  kv.head_dim = 2 * any(1, 20);
  kv.tile_bytes = 2 * kv.panel_bytes();
  kv.block_stride = kv.tile_bytes * kv.num_kv_heads;
  const int num_layers = any(1, 3), num_pairs = any(1, 6);
  const int64_t layer_stride = kv.block_stride * kv.num_blocks;
  std::vector<uint8_t> want(static_cast<size_t>(layer_stride) * num_layers);
  for (uint8_t& byte : want) byte = static_cast<uint8_t>(any(0, 255));
  const Device cache(want);
  kv.base = cache.data;
  // Block 2 is written, copied on, and written again; then random pairs.
  std::vector<int32_t> pairs{0, 2, 2, 1, 1, 2};
  for (int i = 0; i < 2 * num_pairs; i++) pairs.push_back(any(0, kv.num_blocks - 1));
  const Device device_pairs(pairs);
  const int count = static_cast<int>(pairs.size() / 2);
  nds::cuda::copy_blocks({.kv = kv,
                          .layer_stride = layer_stride,
                          .num_layers = num_layers,
                          .pairs = device_pairs.data,
                          .num_pairs = count},
                         stream);
  for (int layer = 0; layer < num_layers; layer++) {
    for (size_t p = 0; p < pairs.size(); p += 2) {
      const std::vector<uint8_t> before = want;
      std::copy_n(before.begin() + layer * layer_stride + pairs[p] * kv.block_stride, kv.block_stride,
                  want.begin() + layer * layer_stride + pairs[p + 1] * kv.block_stride);
    }
  }
  expect_same("copy_blocks", cache.read(), want);
}

}  // namespace nds::cuda::test
