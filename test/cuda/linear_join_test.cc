// How linear() joins the sums of chunks: all kernels alike, and in the given order.
#include "linear_problem.h"

namespace nds::cuda::test {
namespace {

std::vector<uint8_t> random_merges(int count) {
  std::vector<uint8_t> merges;
  for (int c = 0, depth = 1; c < count; c++, depth++) {
    const bool joins_all = c + 1 == count && any(0, 3) > 0;
    merges.push_back(static_cast<uint8_t>(joins_all ? depth - 1 : any(0, depth - 1)));
    depth -= merges.back();
  }
  return merges;
}

void check_that_kernels_agree(Problem& p) {
  const std::vector<float> y = run_sums(p, LinearResult::store, p.args.m, true, nullptr, linear_few);
  expect_same(name_of(p, "store, small tiles"), run_sums(p, LinearResult::store, p.args.m, true, nullptr, tiled_small),
              y);
  expect_same(name_of(p, "store, narrow tiles"),
              run_sums(p, LinearResult::store, p.args.m, true, nullptr, tiled_narrow), y);
  expect_same(name_of(p, "store, wide tiles"), run_sums(p, LinearResult::store, p.args.m, true, nullptr, tiled_wide),
              y);
  if (p.args.w.num_roots > 1 || p.args.w.num_chunks > 16) return;
  const int width = any(1, 32);
  const std::vector<uint8_t> out = run_product(p, p.args.m, width, true, 64, linear_few);
  expect_same(name_of(p, "silu_mul, small tiles"), run_product(p, p.args.m, width, true, 64, tiled_small), out);
  expect_same(name_of(p, "silu_mul, narrow tiles"), run_product(p, p.args.m, width, true, 64, tiled_narrow), out);
  expect_same(name_of(p, "silu_mul, wide tiles"), run_product(p, p.args.m, width, true, 64, tiled_wide), out);
}

// With several roots or one, from a balanced tree or any other.
CUDA_TEST(linear_kernels_agree_bit_for_bit) {
  const int count = any(0, 1) == 0 ? 1 << any(2, 5) : any(1, 20), first = any(0, 1) * any(0, 5);
  Problem p(DType::bf16, DType::bf16, any(1, 32), 64, random_edges(count, 32, 2), first, first + count + any(0, first));
  check_that_kernels_agree(p);
  p.join_by(random_merges(count));
  check_that_kernels_agree(p);
}

// Sets the elements of x and w; types are fp32 or bf16.
void set_values(Problem& p, const std::vector<float>& x, const std::vector<float>& w) {
  const auto store = [](Elements& to, Device<uint8_t>& device, DType dtype, const std::vector<float>& values) {
    for (size_t i = 0; i < values.size(); i++) {
      const uint16_t bits = to_bf16(values[i]);
      std::memcpy(&to.bytes[i * dtype_size(dtype)], dtype == DType::f32 ? static_cast<const void*>(&values[i]) : &bits,
                  dtype_size(dtype));
    }
    device.write(to.bytes);
  };
  store(p.x, *p.device_x, p.args.x_dtype, x);
  store(p.w, *p.device_w, p.args.w.dtype, w);
}

// One product of each chunk is nonzero, so that its sum is exact in any order and only the join of chunks is tested.
// The sums differ widely in magnitude, so that another tree yields other bits.
std::vector<float> set_chunk_sums(Problem& p) {
  const LinearArgs& args = p.args;
  const size_t rows = args.m, columns = args.w.num_rows, ld = args.w.ld, count = p.merges.size();
  std::vector<float> x(rows * ld), w(columns * ld), want(rows * columns * args.w.num_roots);
  std::vector<int> at(count);
  for (size_t c = 0; c < count; c++) {
    if (p.edges[c] == p.edges[c + 1]) continue;
    at[c] = any(p.edges[c], p.edges[c + 1] - 1);
    for (size_t row = 0; row < rows; row++) x[row * ld + at[c]] = from_bf16(to_bf16(normal()));
    for (size_t column = 0; column < columns; column++) {
      w[column * ld + at[c]] = from_bf16(to_bf16(std::ldexp(normal(), any(-4, 4))));
    }
  }
  set_values(p, x, w);
  for (size_t i = 0; i < rows * columns; i++) {
    std::vector<float> stack;
    for (size_t c = 0; c < count; c++) {
      const bool is_empty = p.edges[c] == p.edges[c + 1];
      stack.push_back(is_empty ? 0 : x[i / columns * ld + at[c]] * w[i % columns * ld + at[c]]);
      for (int merge = p.merges[c]; merge > 0; merge--) {
        const float upper = stack.back();
        stack.pop_back();
        stack.back() += upper;
      }
    }
    for (size_t root = 0; root < stack.size(); root++) want[root * rows * columns + i] = stack[root];
  }
  return want;
}

void check_join(Problem& p, Path path, const char* what) {
  const std::vector<float> want = set_chunk_sums(p);
  const std::vector<float> y = run_sums(p, LinearResult::store, p.args.m, false, nullptr, path);
  const size_t rows = p.args.m, columns = p.args.w.num_rows, ld = columns + kPadding;
  std::vector<float> got;
  for (int root = 0; root < p.args.w.num_roots; root++) {
    for (size_t i = 0; i < rows * columns; i++) {
      got.push_back(y[(root * (rows + 1) + i / columns) * ld + i % columns]);
    }
  }
  expect_same(name_of(p, what), got, want);
}

// By the trees that ranks use, and by any other stack program.
CUDA_TEST(linear_joins_chunks_in_the_given_order) {
  for (const bool is_tree : {true, false}) {
    const int count = any(3, 20), first = any(0, 1) * any(1, 5), rest = any(0, first);
    const auto join = [&](Problem& p) {
      if (!is_tree) p.join_by(random_merges(count));
    };
    for (const DType dtype : {DType::f32, DType::bf16}) {
      Problem ragged(dtype, DType::f32, any(1, 6), 32, random_edges(count, 1, 9), first, first + count + rest);
      join(ragged);
      check_join(ragged, linear, "join, plain");
    }
    Problem p(DType::bf16, DType::bf16, any(1, 32), 32, random_edges(count, 32, 2), first, first + count + rest);
    join(p);
    check_join(p, linear_few, "join, few rows");
    check_join(p, tiled_small, "join, small tiles");
    check_join(p, tiled_narrow, "join, narrow tiles");
    check_join(p, tiled_wide, "join, wide tiles");
  }
  const int count = 1 << any(2, 5);  // joined by balanced_sum of linear_few
  Problem p(DType::bf16, DType::bf16, any(1, 8), 32, random_edges(count, 32, 1), 0, count);
  check_join(p, linear_few, "join, balanced");
}

CUDA_TEST(linear_in_wide_tiles) {
  Problem p = random_problem(DType::bf16, DType::bf16, any(129, 140), 32 * any(4, 6), 32, 3, true);
  const std::vector<float> y = run_sums(p, LinearResult::store, p.args.m, true, nullptr, tiled_narrow);
  expect_same(name_of(p, "store, wide tiles"), run_sums(p, LinearResult::store, p.args.m, true, nullptr, tiled_wide),
              y);
  const int width = p.args.w.num_rows / 2 - any(0, 20);
  const std::vector<uint8_t> out = run_product(p, p.args.m, width, true, 96, tiled_narrow);
  expect_same(name_of(p, "silu_mul, wide tiles"), run_product(p, p.args.m, width, true, 96, tiled_wide), out);
}

}  // namespace
}  // namespace nds::cuda::test
