// A product of linear() on the device, its expected results in double precision, and checks of each kind of result.
#pragma once
#include <algorithm>
#include <memory>

#include "core/program/reduction_tree.h"
#include "cuda/kernels.h"
#include "cuda/kernels/linear_paths.h"
#include "harness.h"

namespace nds::cuda::test {

struct Elements {  // as stored, and their values
  std::vector<uint8_t> bytes;
  std::vector<double> values;
};

inline float from_half(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const float magnitude =
      exponent == 0 ? std::ldexp(float(mantissa), -24) : std::ldexp(float(mantissa | 1024), exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

inline Elements elements(DType dtype, size_t count) {
  Elements result;
  result.bytes.resize(count * dtype_size(dtype));
  for (size_t i = 0; i < count; i++) {
    const float value = normal();
    uint16_t bits = to_bf16(value);
    if (dtype == DType::f32) {
      std::memcpy(&result.bytes[i * 4], &value, 4);
      result.values.push_back(value);
      continue;
    }
    if (dtype == DType::f16) bits = static_cast<uint16_t>(any(0, 1) << 15 | any(0, 16) << 10 | any(0, 1023));
    std::memcpy(&result.bytes[i * 2], &bits, 2);
    result.values.push_back(dtype == DType::f16 ? from_half(bits) : from_bf16(bits));
  }
  return result;
}

// A product, its inputs on the device, and its expected results.
struct Problem {
  LinearArgs args;
  std::vector<int32_t> edges;
  std::vector<uint8_t> merges;
  Elements x, w;
  std::vector<float> bias;
  std::unique_ptr<Device<uint8_t>> device_x, device_w, device_merges;
  std::unique_ptr<Device<int32_t>> device_edges;
  std::unique_ptr<Device<float>> device_bias;

  // Chunks first … first + edges.size() - 1 of num_chunks.
  Problem(DType x_dtype, DType w_dtype, int rows, int columns, std::vector<int32_t> chunk_edges, int first,
          int num_chunks)
      : edges(std::move(chunk_edges)) {
    const int count = static_cast<int>(edges.size()) - 1;
    const int k = edges.back(), ld = (k + 31) / 32 * 32;
    x = zero_padded(x_dtype, rows, k, ld);
    w = zero_padded(w_dtype, columns, k, ld);
    bias = normals(columns);
    device_x = std::make_unique<Device<uint8_t>>(x.bytes);
    device_w = std::make_unique<Device<uint8_t>>(w.bytes);
    device_edges = std::make_unique<Device<int32_t>>(edges);
    device_bias = std::make_unique<Device<float>>(bias);
    LinearWeight& weight = args.w;
    weight.data = device_w->data;
    weight.dtype = w_dtype;
    weight.num_rows = columns;
    weight.k = k;
    weight.ld = ld;
    weight.num_chunks = count;
    weight.chunk_edges = device_edges->data;
    weight.host_edges = edges.data();
    join_by(local_merges(num_chunks, first, first + count));
    weight.on_tensor_cores = x_dtype == DType::bf16 && w_dtype == DType::bf16 &&
                             std::all_of(edges.begin(), edges.end(), [](int32_t edge) { return edge % 32 == 0; });
    args.x = device_x->data;
    args.x_dtype = x_dtype;
    args.ldx = ld;
    args.m = rows;
  }

  void join_by(std::vector<uint8_t> program) {
    merges = std::move(program);
    device_merges = std::make_unique<Device<uint8_t>>(merges);
    args.w.merges = device_merges->data;
    args.w.host_merges = merges.data();
    args.w.stack_depth = 1;
    args.w.num_roots = 0;
    for (const uint8_t merge : merges) {
      args.w.stack_depth = std::max(args.w.stack_depth, ++args.w.num_roots);
      args.w.num_roots -= merge;
    }
  }

  static Elements zero_padded(DType dtype, int rows, int width, int ld) {
    Elements result = elements(dtype, static_cast<size_t>(rows) * ld);
    const size_t size = dtype_size(dtype);
    for (int row = 0; row < rows; row++) {
      for (int i = width; i < ld; i++) {
        const size_t at = static_cast<size_t>(row) * ld + i;
        result.values[at] = 0;
        std::memset(&result.bytes[at * size], 0, size);
      }
    }
    return result;
  }

  // The sum over columns [begin, end) of k.
  double sum(int row, int column, int begin, int end) const {
    double total = 0;
    for (int k = begin; k < end; k++) total += x.values[row * args.ldx + k] * w.values[column * args.w.ld + k];
    return total;
  }
  // [num_roots + 1]: root r is the sum over columns [edges[r], edges[r + 1]) of k.
  std::vector<int32_t> root_edges() const {
    std::vector<int32_t> begins;
    for (size_t c = 0; c < merges.size(); c++) {
      begins.push_back(edges[c]);
      begins.resize(begins.size() - merges[c]);
    }
    begins.push_back(edges.back());
    return begins;
  }
};

constexpr int kPadding = 32;  // columns of y that must stay unchanged

using Path = void (*)(const LinearArgs& args, LaunchPlace place);
inline void tiled_small(const LinearArgs& args, LaunchPlace place) { linear_tiled(args, place, TileShape::small); }
inline void tiled_narrow(const LinearArgs& args, LaunchPlace place) { linear_tiled(args, place, TileShape::narrow); }
inline void tiled_wide(const LinearArgs& args, LaunchPlace place) { linear_tiled(args, place, TileShape::wide); }

// y of store or add for the first `rows` rows; add starts from `before`.
inline std::vector<float> run_sums(Problem& p, LinearResult result, int rows, bool has_bias,
                                   const std::vector<float>* before, Path path = linear) {
  LinearArgs args = p.args;
  args.m = rows;
  args.result = result;
  args.bias = has_bias ? p.device_bias->data : nullptr;
  args.ldy = args.w.num_rows + kPadding;
  args.root_stride = (rows + 1) * args.ldy;
  Device<float> y(static_cast<size_t>(args.w.num_roots * args.root_stride));
  if (before != nullptr) y.write(*before);
  args.y = y.data;
  path(args, place());
  return y.read();
}

inline std::vector<uint8_t> run_product(Problem& p, int rows, int width, bool has_bias, int64_t ld_out,
                                        Path path = linear) {
  LinearArgs args = p.args;
  args.m = rows;
  args.result = LinearResult::silu_mul;
  args.bias = has_bias ? p.device_bias->data : nullptr;
  args.width = width;
  args.up_offset = args.w.num_rows / 2;
  args.ld_out = ld_out;
  Device<uint8_t> out(static_cast<size_t>((rows + 1) * ld_out) * dtype_size(args.x_dtype));
  args.out = out.data;
  path(args, place());
  return out.read();
}

inline std::string name_of(const Problem& p, const char* what) {
  return std::string("linear ") + what + " m " + std::to_string(p.args.m) + " n " + std::to_string(p.args.w.num_rows) +
         " k " + std::to_string(p.args.w.k) + " chunks " + std::to_string(p.args.w.num_chunks) + " types " +
         std::to_string(static_cast<int>(p.args.x_dtype)) + std::to_string(static_cast<int>(p.args.w.dtype));
}

inline bool is_poison(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits == 0xffffffffu;
}

inline void check_store(Problem& p, bool has_bias) {
  const LinearArgs& args = p.args;
  const std::vector<float> y = run_sums(p, LinearResult::store, args.m, has_bias, nullptr);
  const std::vector<int32_t> begins = p.root_edges();
  const int64_t ld = args.w.num_rows + kPadding, root_stride = (args.m + 1) * ld;
  std::vector<float> got, want;
  bool is_clean = true;
  for (int64_t i = 0; i < static_cast<int64_t>(y.size()); i++) {
    const int root = static_cast<int>(i / root_stride), row = static_cast<int>(i % root_stride / ld);
    const int column = static_cast<int>(i % ld);
    if (row == args.m || column >= args.w.num_rows) {
      is_clean = is_clean && is_poison(y[i]);
      continue;
    }
    const double more = has_bias && args.w.num_roots == 1 ? p.bias[column] : 0;
    got.push_back(y[i]);
    want.push_back(static_cast<float>(p.sum(row, column, begins[root], begins[root + 1]) + more));
  }
  expect_near(name_of(p, "store"), got, want, 2e-4f);
  note(is_clean, name_of(p, "store") + " writes past the result");
}

inline void check_add(Problem& p, bool has_bias) {
  const LinearArgs& args = p.args;
  const int64_t ld = args.w.num_rows + kPadding;
  const std::vector<float> before = normals(static_cast<size_t>((args.m + 1) * ld));
  std::vector<float> want = before;
  for (int row = 0; row < args.m; row++) {
    for (int column = 0; column < args.w.num_rows; column++) {
      want[row * ld + column] += static_cast<float>(p.sum(row, column, 0, args.w.k) + (has_bias ? p.bias[column] : 0));
    }
  }
  expect_near(name_of(p, "add"), run_sums(p, LinearResult::add, args.m, has_bias, &before), want, 2e-4f);
}

inline void check_product(Problem& p, int width, bool has_bias) {
  const LinearArgs& args = p.args;
  const int up = args.w.num_rows / 2, ld = (width + 31) / 32 * 32 + any(0, 1) * 32;
  const std::vector<uint8_t> bytes = run_product(p, args.m, width, has_bias, ld);
  std::vector<float> got, want;
  bool is_clean = true;
  for (int i = 0; i < (args.m + 1) * ld; i++) {
    float value;
    uint16_t bits;
    std::memcpy(&value, &bytes[args.x_dtype == DType::f32 ? i * 4 : 0], 4);
    std::memcpy(&bits, &bytes[i * 2], 2);
    if (args.x_dtype == DType::bf16) value = from_bf16(bits);
    const int row = i / ld, column = i % ld;
    if (row == args.m) {
      is_clean = is_clean && std::isnan(value);
      continue;
    }
    got.push_back(value);
    if (column >= width) {
      want.push_back(0);
      is_clean = is_clean && value == 0;
      continue;
    }
    const double gate = p.sum(row, column, 0, args.w.k) + (has_bias ? p.bias[column] : 0);
    const double other = p.sum(row, up + column, 0, args.w.k) + (has_bias ? p.bias[up + column] : 0);
    want.push_back(static_cast<float>(gate / (1 + std::exp(-gate)) * other));
  }
  expect_near(name_of(p, "silu_mul"), got, want, args.x_dtype == DType::f32 ? 5e-4f : 6e-3f);
  note(is_clean, name_of(p, "silu_mul") + " padding");
}

inline std::vector<int32_t> random_edges(int count, int unit, int most) {
  std::vector<int32_t> edges(1, 0);
  for (int c = 0; c < count; c++) edges.push_back(edges.back() + unit * any(0, most));
  if (edges.back() == 0) edges.back() = unit;
  return edges;
}

inline Problem random_problem(DType x_dtype, DType w_dtype, int rows, int columns, int unit, int most, bool one_root) {
  const int num_chunks = any(1, 6), first = one_root ? 0 : any(0, num_chunks - 1);
  const int count = one_root ? num_chunks : any(1, num_chunks - first);
  return Problem(x_dtype, w_dtype, rows, columns, random_edges(count, unit, most), first, num_chunks);
}

}  // namespace nds::cuda::test
