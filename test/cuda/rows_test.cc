// Operators on rows, against loops in double precision; bit for bit where they work element by element.
#include <algorithm>

#include "cuda/kernels.h"
#include "harness.h"

namespace nds::cuda::test {
namespace {

constexpr float kNan = NAN, kInf = INFINITY;

int64_t round32(int64_t value) { return (value + 31) / 32 * 32; }

// Normals at stride ld; NaN past the width, which must not reach any result.
std::vector<float> matrix(int rows, int width, int64_t ld) {
  std::vector<float> values(static_cast<size_t>(rows) * ld, kNan);
  for (int r = 0; r < rows; r++) {
    for (int i = 0; i < width; i++) values[r * ld + i] = normal();
  }
  return values;
}

// Columns [0, width) of the rows.
template <typename T>
std::vector<T> cut(const std::vector<T>& values, int width, int64_t ld) {
  std::vector<T> result;
  for (size_t row = 0; row < values.size(); row += ld)
    result.insert(result.end(), values.begin() + row, values.begin() + row + width);
  return result;
}

std::vector<float> widened(const std::vector<uint16_t>& values) {
  std::vector<float> result;
  for (const uint16_t value : values) result.push_back(from_bf16(value));
  return result;
}
std::vector<uint16_t> narrowed(const std::vector<float>& values) {
  std::vector<uint16_t> result;
  for (const float value : values) result.push_back(to_bf16(value));
  return result;
}

template <typename T>
void check_embedding(const std::vector<T>& table, DType dtype, int width, int num_rows, float (*widen)(T)) {
  const int rows = any(1, 9), first_row = any(0, 5);
  const int64_t ld = round32(width);
  std::vector<int32_t> ids;
  for (int i = 0; i < rows; i++) ids.push_back(any(0, 30));
  std::vector<float> want(static_cast<size_t>(rows) * ld, 0);
  for (int r = 0; r < rows; r++) {
    const int index = ids[r] - first_row;
    for (int i = 0; i < width && index >= 0 && index < num_rows; i++) want[r * ld + i] = widen(table[index * ld + i]);
  }
  const Device device_ids(ids);
  const Device device_table(table);
  const Device<float> out(want.size());
  embedding({.token_ids = device_ids.data,
             .rows = rows,
             .table = device_table.data,
             .table_dtype = dtype,
             .table_ld = ld,
             .first_row = first_row,
             .num_rows = num_rows,
             .width = width,
             .out = out.data,
             .ld_out = ld},
            place());
  expect_same("embedding", out.read(), want);
}

struct NormResult {
  std::vector<float> sums, out;
};
NormResult run_norm(const std::vector<float>& x, const std::vector<float>* addend, const std::vector<float>& weight,
                    int rows, int width, DType dtype) {
  const int64_t ld = round32(width);
  const Device device_x(x), device_addend(addend == nullptr ? x : *addend), device_weight(weight);
  const Device<float> out(x.size());
  const Device<uint16_t> out_bf16(x.size());
  rms_norm({.x = device_x.data,
            .ldx = ld,
            .addend = addend == nullptr ? nullptr : device_addend.data,
            .ld_addend = ld,
            .weight = device_weight.data,
            .eps = 1e-6f,
            .rows = rows,
            .width = width,
            .out = dtype == DType::f32 ? static_cast<void*>(out.data) : out_bf16.data,
            .ld_out = ld,
            .out_dtype = dtype},
           place());
  return {device_x.read(), dtype == DType::f32 ? out.read() : widened(out_bf16.read())};
}

void check_rms_norm(bool has_addend) {
  const int kind = any(0, 2), rows = any(1, 4);
  const int width = kind == 0 ? any(1, 100) : kind == 1 ? any(500, 2100) : any(2049, 5000);
  const int64_t ld = round32(width);
  const DType dtype = any(0, 1) == 1 ? DType::f32 : DType::bf16;
  const std::vector<float> x = matrix(rows, width, ld), addend = matrix(rows, width, ld), weight = normals(width);
  std::vector<float> sums = x, want(x.size(), 0);
  for (int r = 0; r < rows; r++) {
    double squares = 0;
    for (int i = 0; i < width; i++) {
      if (has_addend) sums[r * ld + i] += addend[r * ld + i];
      squares += double{sums[r * ld + i]} * sums[r * ld + i];
    }
    for (int i = 0; i < width; i++)
      want[r * ld + i] = static_cast<float>(sums[r * ld + i] / std::sqrt(squares / width + 1e-6) * weight[i]);
  }
  const NormResult got = run_norm(x, has_addend ? &addend : nullptr, weight, rows, width, dtype);
  expect_near("rms_norm", got.out, want, dtype == DType::f32 ? 1e-5f : 0.01f);
  expect_same("rms_norm sums", cut(got.sums, width, ld), cut(sums, width, ld));
  // The last row has the same bits alone.
  const std::vector<float> last(sums.end() - ld, sums.end());
  const std::vector<float> alone = run_norm(last, nullptr, weight, 1, width, dtype).out;
  expect_same("rms_norm of a row alone", alone, {got.out.end() - ld, got.out.end()});
}

}  // namespace

CUDA_TEST(embedding) {
  const int width = any(1, 70), num_rows = any(1, 20);
  const std::vector<float> values = normals(static_cast<size_t>(num_rows) * round32(width));
  check_embedding<float>(values, DType::f32, width, num_rows, [](float value) { return value; });
  check_embedding<uint16_t>(narrowed(values), DType::bf16, width, num_rows, from_bf16);
  // fp16 of either sign, normal numbers only.
  std::vector<uint16_t> halves;
  for (size_t i = 0; i < values.size(); i++)
    halves.push_back(static_cast<uint16_t>(any(0, 1) << 15 | any(1, 30) << 10 | any(0, 1023)));
  check_embedding<uint16_t>(halves, DType::f16, width, num_rows, [](uint16_t bits) {
    const float value = std::ldexp(1.0f + static_cast<float>(bits & 1023) / 1024, (bits >> 10 & 31) - 15);
    return bits >> 15 ? -value : value;
  });
}

CUDA_TEST(rms_norm) {
  for (const bool has_addend : {false, true}) check_rms_norm(has_addend);
}

CUDA_TEST(rms_norm_not_finite) {
  const int width = any(3, 80);
  const int64_t ld = round32(width);
  std::vector<float> x = matrix(3, width, ld);
  x[any(0, width - 1)] = kNan;
  const int infinite = any(0, width - 1);
  x[ld + infinite] = -kInf;
  std::fill_n(x.begin() + 2 * ld, width, 0.0f);
  const std::vector<float> out = run_norm(x, nullptr, std::vector<float>(width, 1), 3, width, DType::f32).out;
  bool passed = true;
  for (int i = 0; i < width; i++) {
    passed = passed && std::isnan(out[i]) && out[2 * ld + i] == 0;
    passed = passed && (i == infinite ? std::isnan(out[ld + i]) : out[ld + i] == 0);
  }
  note(passed, "rms_norm of NaN, of infinity, of zeros");
}

CUDA_TEST(gather_rows) {
  const int rows = any(1, 5), width = any(1, 90);
  const int64_t ld = round32(width), ld_out = ld + 32 * any(0, 1);
  const std::vector<float> x = matrix(rows, width, ld);
  std::vector<int32_t> indices;
  std::vector<float> want(static_cast<size_t>(rows * ld_out), 0);
  for (int r = 0; r < rows; r++) {
    indices.push_back(any(-1, rows - 1));
    for (int i = 0; i < width && indices[r] >= 0; i++) want[r * ld_out + i] = x[indices[r] * ld + i];
  }
  const Device device_x(x);
  const Device device_bf16(narrowed(x));
  const Device device_indices(indices);
  const Device<float> out(want.size());
  nds::cuda::gather_rows({.x = device_x.data,
                          .ldx = ld,
                          .indices = device_indices.data,
                          .rows = rows,
                          .width = width,
                          .element_size = 4,
                          .out = out.data,
                          .ld_out = ld_out},
                         place());
  expect_same("gather_rows", out.read(), want);
  const Device<uint16_t> out_bf16(want.size());
  nds::cuda::gather_rows({.x = device_bf16.data,
                          .ldx = ld,
                          .indices = device_indices.data,
                          .rows = rows,
                          .width = width,
                          .element_size = 2,
                          .out = out_bf16.data,
                          .ld_out = ld_out},
                         place());
  expect_same("gather_rows of bf16", out_bf16.read(), narrowed(want));
}

CUDA_TEST(silu_mul) {
  // up follows gate in the same rows, not always at a multiple of 16 bytes.
  const int rows = any(1, 5), width = any(1, 2) == 1 ? any(1, 90) : any(1000, 1100);
  const int up_offset = any(0, 2) > 0 ? (width + 3) / 4 * 4 : width + any(0, 3);
  const int64_t ld = round32(up_offset + width), ld_out = round32(width);
  std::vector<float> x = matrix(rows, up_offset + width, ld), want(static_cast<size_t>(rows * ld_out), 0);
  for (float& value : x) value *= 4;
  for (int r = 0; r < rows; r++) {
    for (int i = 0; i < width; i++) {
      const double gate = x[r * ld + i];
      want[r * ld_out + i] = static_cast<float>(gate / (1 + std::exp(-gate)) * x[r * ld + up_offset + i]);
    }
  }
  const Device device_x(x);
  const Device<float> out(want.size());
  const Device<uint16_t> out_bf16(want.size());
  const float* const up = device_x.data + up_offset;
  nds::cuda::silu_mul({.gate = device_x.data,
                       .up = up,
                       .ld = ld,
                       .rows = rows,
                       .width = width,
                       .out = out.data,
                       .ld_out = ld_out,
                       .out_dtype = DType::f32},
                      place());
  nds::cuda::silu_mul({.gate = device_x.data,
                       .up = up,
                       .ld = ld,
                       .rows = rows,
                       .width = width,
                       .out = out_bf16.data,
                       .ld_out = ld_out,
                       .out_dtype = DType::bf16},
                      place());
  const std::vector<float> got = out.read();
  expect_near("silu_mul", got, want, 1e-6f);
  expect_same("silu_mul to bf16", out_bf16.read(), narrowed(got));
}

CUDA_TEST(silu_mul_extremes) {
  const std::vector<float> gate{0, -0.0f, kInf, 200, -87, -90, -kInf, kNan}, up(8, 1);
  const Device device_gate(gate), device_up(up);
  const Device<float> out(32);
  nds::cuda::silu_mul({.gate = device_gate.data,
                       .up = device_up.data,
                       .ld = 32,
                       .rows = 1,
                       .width = 8,
                       .out = out.data,
                       .ld_out = 32,
                       .out_dtype = DType::f32},
                      place());
  const std::vector<float> got = out.read();
  note(got[0] == 0 && got[1] == 0 && got[2] == kInf && got[3] == 200, "silu of 0, -0, infinity, 200");
  note(std::fabs(got[4] / (-87 * std::exp(-87.0)) - 1) < 1e-5 && got[5] == 0, "silu of -87 and -90");
  note(std::isnan(got[6]) && std::isnan(got[7]) && got[8] == 0, "silu of -infinity and NaN");
}

CUDA_TEST(add) {
  const int rows = any(1, 5), width = any(1, 2) == 1 ? any(1, 90) : any(1000, 1100);
  const int64_t lda = round32(width), ldb = lda + 32;
  const std::vector<float> a = matrix(rows, width, lda), b = matrix(rows, width, ldb);
  std::vector<float> want;
  for (int r = 0; r < rows; r++) {
    for (int i = 0; i < width; i++) want.push_back(a[r * lda + i] + b[r * ldb + i]);
  }
  const Device device_a(a), device_b(b);
  const Device<float> out(b.size());
  nds::cuda::add({.a = device_a.data,
                  .b = device_b.data,
                  .out = out.data,
                  .lda = lda,
                  .ldb = ldb,
                  .ld_out = ldb,
                  .rows = rows,
                  .width = width},
                 place());
  expect_same("add", cut(out.read(), width, ldb), want);
  nds::cuda::add({.a = device_a.data,
                  .b = device_b.data,
                  .out = device_a.data,
                  .lda = lda,
                  .ldb = ldb,
                  .ld_out = lda,
                  .rows = rows,
                  .width = width},
                 place());
  expect_same("add in place", cut(device_a.read(), width, lda), want);
}

CUDA_TEST(join) {
  const int num_inputs = any(0, 3) == 0 ? kMaxJoinInputs : any(1, 9), width = any(1, 40), rows = any(1, 4);
  const size_t count = static_cast<size_t>(rows) * width;
  const bool has_bias = any(0, 1) == 1;
  std::vector<std::vector<float>> inputs, stack;
  JoinArgs args{};
  const Device<float> all(count * num_inputs);
  for (int input = 0; input < num_inputs; input++) {
    inputs.push_back(normals(count));
    // Any stack program that leaves one sum, at most ten deep on the way.
    const int depth = static_cast<int>(stack.size());
    const int merges = input + 1 == num_inputs ? depth : std::max(any(0, std::min(depth, 2)), depth - 8);
    std::vector<float> sum = inputs.back();
    for (int merge = 0; merge < merges; merge++) {
      for (size_t i = 0; i < count; i++) sum[i] = stack.back()[i] + sum[i];
      stack.pop_back();
    }
    stack.push_back(sum);
    args.inputs[input] = all.data + count * input;
    args.merges[input] = static_cast<uint8_t>(merges);
  }
  std::vector<float> flat, want = stack[0];
  for (const std::vector<float>& input : inputs) flat.insert(flat.end(), input.begin(), input.end());
  must(cudaMemcpyAsync(all.data, flat.data(), flat.size() * 4, cudaMemcpyHostToDevice, stream));
  const std::vector<float> bias = normals(width);
  const Device device_bias(bias);
  const Device<float> out(count);
  for (size_t i = 0; i < count && has_bias; i++) want[i] += bias[i % width];
  args.num_inputs = num_inputs;
  args.bias = has_bias ? device_bias.data : nullptr;
  args.width = width;
  args.count = static_cast<int64_t>(count);
  args.out = out.data;
  nds::cuda::join(args, place());
  expect_same("join", out.read(), want);
}

}  // namespace nds::cuda::test
