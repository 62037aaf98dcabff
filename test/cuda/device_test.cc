// Each wrapper of cuda/device.h against a formula on the host: PTX under nvcc, else its emulation.
#include "harness.h"

namespace nds::cuda::test {
namespace {

simt::LaunchShape one_block(unsigned threads, size_t shared_bytes = 0) {
  return {dim3(1), dim3(threads), shared_bytes, stream};
}

std::vector<uint16_t> halves(size_t count) {
  std::vector<uint16_t> values(count);
  for (uint16_t& value : values) value = static_cast<uint16_t>(engine());
  return values;
}

uint32_t pair_of(uint16_t low, uint16_t high) { return low | uint32_t{high} << 16; }

// Copies.

// Three groups of 32 copies; threads of odd index copy nothing in the last two. out [3, 32] uint4.
__global__ void copies_kernel(const uint4* in, uint4* out) {
  SIMT_SHARED_ARRAY(uint4, shared, 3 * 32);
  const unsigned lane = threadIdx.x;
  simt::cp_async16(shared + lane, in + lane);
  simt::cp_async_commit();
  simt::cp_async16(shared + 32 + lane, in + 32 + lane, lane % 2 == 0);
  simt::cp_async_commit();
  simt::cp_async_wait<1>();
  __syncthreads();
  out[lane] = shared[31 - lane];
  simt::cp_async_wait<0>();
  __syncthreads();
  out[32 + lane] = shared[32 + 31 - lane];
  simt::cp_async16(shared + 64 + lane, in + 64 + lane, lane % 2 == 0);
  simt::cp_async_wait_all();
  __syncthreads();
  out[64 + lane] = shared[64 + 31 - lane];
}

CUDA_TEST(device_cp_async) {
  std::vector<uint32_t> in(3 * 32 * 4), want(in.size());
  for (uint32_t& word : in) word = engine();
  for (size_t i = 0; i < want.size(); i++) {
    const size_t group = i / 128, lane = 31 - i / 4 % 32;
    want[i] = group > 0 && lane % 2 == 1 ? 0 : in[group * 128 + lane * 4 + i % 4];
  }
  const Device<uint32_t> from(in), to(in.size());
  must(simt::launch(copies_kernel, one_block(32), reinterpret_cast<const uint4*>(from.data),
                    reinterpret_cast<uint4*>(to.data)));
  expect_same("cp_async16", to.read(), want);
}

__global__ void loads_kernel(const uint4* in, uint4* out) {
  out[threadIdx.x] =
      threadIdx.x % 2 == 0 ? simt::ld_nc_16(in + 63 - threadIdx.x) : simt::ld_early_16(in + 63 - threadIdx.x);
}

CUDA_TEST(device_loads) {
  std::vector<uint32_t> in(64 * 4), want(in.size());
  for (uint32_t& word : in) word = engine();
  for (size_t i = 0; i < want.size(); i++) want[i] = in[(63 - i / 4) * 4 + i % 4];
  const Device<uint32_t> from(in), to(in.size());
  must(simt::launch(loads_kernel, one_block(64), reinterpret_cast<const uint4*>(from.data),
                    reinterpret_cast<uint4*>(to.data)));
  expect_same("ld_nc_16 and ld_early_16", to.read(), want);
}

// Matrices. A row takes 8 of kStride elements, and matrix m has rows 31 - (8 m … 8 m + 7).

constexpr int kStride = 24;

__global__ void matrices_kernel(const uint16_t* in, uint32_t* plain, uint32_t* transposed) {
  SIMT_SHARED_ARRAY(uint16_t, shared, 32 * kStride);
  for (int i = threadIdx.x; i < 32 * kStride; i += 32) shared[i] = in[i];
  __syncwarp();
  uint32_t parts[4];
  const uint16_t* const row = shared + (31 - threadIdx.x) * kStride;
  simt::ldmatrix_x4(parts, row);
  for (int m = 0; m < 4; m++) plain[threadIdx.x * 4 + m] = parts[m];
  simt::ldmatrix_x4_trans(parts, row + 8);
  for (int m = 0; m < 4; m++) transposed[threadIdx.x * 4 + m] = parts[m];
}

// PTX ISA, ldmatrix: lane l receives elements 2 (l % 4) and the next of row l / 4, or of column l / 4 if transposed.
CUDA_TEST(device_ldmatrix) {
  const std::vector<uint16_t> in = halves(32 * kStride);
  std::vector<uint32_t> want(128), want_transposed(128);
  for (int lane = 0; lane < 32; lane++) {
    for (int m = 0; m < 4; m++) {
      const auto at = [&](int row, int column) { return in[(31 - (8 * m + row)) * kStride + column]; };
      const int major = lane / 4, minor = lane % 4 * 2;
      want[lane * 4 + m] = pair_of(at(major, minor), at(major, minor + 1));
      want_transposed[lane * 4 + m] = pair_of(at(minor, 8 + major), at(minor + 1, 8 + major));
    }
  }
  const Device<uint16_t> from(in);
  const Device<uint32_t> plain(128), transposed(128);
  must(simt::launch(matrices_kernel, one_block(32), from.data, plain.data, transposed.data));
  expect_same("ldmatrix_x4", plain.read(), want);
  expect_same("ldmatrix_x4_trans", transposed.read(), want_transposed);
}

// a [16, 16], b [16, 8], c [16, 8], row-major. PTX ISA, fragments of mma.m16n8k16.
__global__ void product_kernel(const uint16_t* a, const uint16_t* b, float* c) {
  const int group = threadIdx.x / 4, pair = threadIdx.x % 4 * 2;
  const auto pair_in_a = [&](int row, int k) { return a[row * 16 + k] | uint32_t{a[row * 16 + k + 1]} << 16; };
  const auto pair_in_b = [&](int k) { return b[k * 8 + group] | uint32_t{b[(k + 1) * 8 + group]} << 16; };
  const uint32_t of_a[4] = {pair_in_a(group, pair), pair_in_a(group + 8, pair), pair_in_a(group, pair + 8),
                            pair_in_a(group + 8, pair + 8)};
  float* const rows[2] = {c + group * 8 + pair, c + (group + 8) * 8 + pair};
  float sums[4] = {rows[0][0], rows[0][1], rows[1][0], rows[1][1]};
  simt::mma_bf16(sums, of_a, pair_in_b(pair), pair_in_b(pair + 8));
  for (int i = 0; i < 4; i++) rows[i / 2][i % 2] = sums[i];
}

// Integers, whose sums are exact in any order.
CUDA_TEST(device_mma) {
  std::vector<float> a(256), b(128), c(128);
  for (std::vector<float>* matrix : {&a, &b, &c})
    for (float& value : *matrix) value = static_cast<float>(any(-100, 100));
  std::vector<uint16_t> narrow_a, narrow_b;
  for (const float value : a) narrow_a.push_back(to_bf16(value));
  for (const float value : b) narrow_b.push_back(to_bf16(value));
  std::vector<float> want = c;
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 8; j++)
      for (int k = 0; k < 16; k++) want[i * 8 + j] += a[i * 16 + k] * b[k * 8 + j];
  const Device<uint16_t> device_a(narrow_a), device_b(narrow_b);
  const Device<float> device_c(c);
  must(simt::launch(product_kernel, one_block(32), device_a.data, device_b.data, device_c.data));
  expect_same("mma_bf16", device_c.read(), want);
}

__global__ void sum_kernel(const float* x, float* out) { out[threadIdx.x] = simt::warp_sum(x[threadIdx.x]); }

CUDA_TEST(device_warp_sum) {
  const std::vector<float> x = normals(64, 100);
  std::vector<float> want = x;
  for (int offset = 16; offset > 0; offset /= 2) {
    const std::vector<float> before = want;
    for (int i = 0; i < 64; i++) want[i] = before[i] + before[i ^ offset];
  }
  const Device<float> from(x), to(64);
  must(simt::launch(sum_kernel, one_block(64), from.data, to.data));
  expect_same("warp_sum", to.read(), want);
}

// Flags and time.

// out: whether waits end, loaded flags, and whether a wait in vain takes its time.
__global__ void flags_kernel(uint32_t* flags, uint32_t* out) {
  constexpr uint64_t second = 1000000000;
  if (threadIdx.x > 0) return;
  simt::store_release(flags + 1, 7);
  out[0] = simt::spin_wait(flags, 5, second);
  out[1] = simt::spin_wait(flags + 1, 7, second);
  out[2] = simt::spin_wait(flags + 2, 0xfffffffe, second);
  out[3] = simt::load_acquire(flags) + simt::load_acquire(flags + 1);
  const uint64_t start = simt::nanoseconds();
  out[4] = simt::spin_wait(flags, 6, second / 1000);
  const uint64_t waited = simt::nanoseconds() - start;
  out[5] = waited >= second / 1000 && waited < 10 * second;
}

CUDA_TEST(device_flags) {
  // The last has passed 2^32.
  const Device<uint32_t> flags(std::vector<uint32_t>{5, 0, 3}), out(6);
  must(simt::launch(flags_kernel, one_block(32), flags.data, out.data));
  expect_same("flags", out.read(), {1, 1, 1, 12, 0, 1});
  expect_same("a stored flag", flags.read(), {5, 7, 3});
}

// Launches.

// out: values of two arrays that overlap neither each other nor the end, and whether both are aligned.
__global__ void carver_kernel(int count, int* out) {
  simt::SharedCarver carver;
  uint8_t* const bytes = carver.take<uint8_t>(5);
  int* const words = carver.take<int>(count);
  const int lane = static_cast<int>(threadIdx.x);
  if (lane < 5) bytes[lane] = static_cast<uint8_t>(lane);
  for (int i = lane; i < count; i += 32) words[i] = i;
  __syncthreads();
  int wrong = reinterpret_cast<uintptr_t>(bytes) % 16 + reinterpret_cast<uintptr_t>(words) % 16 != 0;
  for (int i = 0; i < count; i++) wrong += words[i] != i;
  out[lane] = wrong + (lane < 5 && bytes[lane] != lane);
}

CUDA_TEST(device_shared_carver) {
  for (const int count : {4, 16000}) {  // the latter needs more than a launch has by default
    const Device<int> out(32);
    must(simt::launch(carver_kernel, one_block(32, 16 + 4 * static_cast<size_t>(count)), count, out.data));
    expect_same("SharedCarver", out.read(), std::vector<int>(32, 0));
  }
}

__global__ void first_kernel(int* data) {
  simt::wait_for_previous();
  for (int i = 0; i < 1000; i++) data[threadIdx.x] = data[threadIdx.x] % 1000 + static_cast<int>(threadIdx.x);
}
__global__ void second_kernel(const int* data, int64_t factor, int64_t* out) {
  simt::wait_for_previous();
  out[threadIdx.x] = data[threadIdx.x] * factor;
}

CUDA_TEST(device_overlapping_launches) {
  const std::vector<int> zeros(64, 0);
  const Device<int> data(zeros);
  const Device<int64_t> out(64);
  std::vector<int64_t> want(64);
  for (int i = 0; i < 64; i++) {
    int value = 0;
    for (int k = 0; k < 1000; k++) value = value % 1000 + i;
    want[i] = int64_t{value} * 5;
  }
  simt::LaunchShape shape = one_block(64);
  must(simt::launch(first_kernel, shape, data.data));
  shape.place = {stream, true};
  must(simt::launch(second_kernel, shape, data.data, 5, out.data));  // an int for int64_t
  expect_same("a launch that may overlap the one before", out.read(), want);
}

}  // namespace
}  // namespace nds::cuda::test
