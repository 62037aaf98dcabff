// linear() of every type and result, and the same bits for any number of rows.
#include "linear_problem.h"

namespace nds::cuda::test {
namespace {

CUDA_TEST(linear_of_any_types) {
  for (const DType x : {DType::f32, DType::bf16}) {
    for (const DType w : {DType::f32, DType::bf16, DType::f16}) {
      Problem many = random_problem(x, w, any(1, 6), 32 * any(1, 2), 1, 50, false);
      check_store(many, any(0, 1) == 1);
      Problem one = random_problem(x, w, any(1, 6), 64, 1, 50, true);
      check_add(one, any(0, 1) == 1);
      check_product(one, any(1, 32), any(0, 1) == 1);
    }
  }
}

CUDA_TEST(linear_on_tensor_cores) {
  for (const int rows : {any(1, 8), any(9, 16), any(17, 32), any(33, 70)}) {
    Problem many = random_problem(DType::bf16, DType::bf16, rows, 32 * any(1, 3), 32, 3, false);
    check_store(many, any(0, 1) == 1);
    Problem one = random_problem(DType::bf16, DType::bf16, rows, 128, 32, 3, true);
    check_add(one, any(0, 1) == 1);
    check_product(one, any(1, 64), any(0, 1) == 1);
  }
}

// More chunks than warps of a block, chunks longer than the pipeline, and a deep stack.
CUDA_TEST(linear_of_many_chunks) {
  const int num_chunks = any(17, 33);
  Problem many(DType::bf16, DType::bf16, any(1, 12), 32, random_edges(num_chunks, 32, 2), 0, num_chunks);
  check_store(many, true);
  Problem tall(DType::bf16, DType::bf16, 33, 32, random_edges(num_chunks, 32, 1), 0, num_chunks);
  check_store(tall, true);
  Problem wide(DType::bf16, DType::bf16, any(1, 8), 32, {0, 32 * any(8, 20), 32 * any(20, 30)}, 0, 2);
  check_add(wide, true);
}

template <typename T>
std::vector<T> first_rows(const std::vector<T>& all, int rows, size_t ld) {
  return std::vector<T>(all.begin(), all.begin() + static_cast<int64_t>(rows * ld));
}

CUDA_TEST(linear_bits_do_not_depend_on_rows) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    const int most = dtype == DType::bf16 ? 130 : 10;
    Problem p = random_problem(dtype, dtype, most, 64, 32, 3, true);
    const size_t ld = p.args.w.num_rows + kPadding, ld_out = 32, size = dtype_size(dtype);
    const std::vector<float> y = run_sums(p, LinearResult::store, most, true, nullptr);
    const std::vector<uint8_t> out = run_product(p, most, 29, true, ld_out);
    for (const int rows : {1, 3, 8, 9, 33, 70}) {
      if (rows > most) continue;
      expect_same(name_of(p, "store, fewer rows"),
                  first_rows(run_sums(p, LinearResult::store, rows, true, nullptr), rows, ld), first_rows(y, rows, ld));
      expect_same(name_of(p, "silu_mul, fewer rows"),
                  first_rows(run_product(p, rows, 29, true, ld_out), rows, ld_out * size),
                  first_rows(out, rows, ld_out * size));
    }
  }
}

}  // namespace
}  // namespace nds::cuda::test
