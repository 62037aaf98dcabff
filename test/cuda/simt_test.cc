// Kernels on the emulated device: every fault that it promises to find is found, and named; failures are sticky until
// reset.
#include "harness.h"

#if defined(NDS_EMULATED)
namespace nds::cuda::test {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // sanitizers end the process where plain builds report a failed launch
#else
constexpr bool kSanitized = false;
#endif

__global__ void write_kernel(int* out, int value) { out[blockIdx.x * blockDim.x + threadIdx.x] = value; }

// Launches a faulty kernel of two blocks. Its error must be sticky until a reset, and its message must contain `part`.
template <typename... Params, typename... Args>
void expect_failure(const std::string& part, int threads, size_t shared_bytes, void (*kernel)(Params...),
                    Args... args) {
  simt::launch(kernel, simt::LaunchShape{dim3(2), dim3(threads), shared_bytes, stream}, args...);
  const cudaError_t error = cudaStreamSynchronize(stream);
  const std::string text = cudaGetErrorString(error);
  note(error != cudaSuccess && text.find(part) != std::string::npos,
       "expected '" + part + "' but received '" + text + "'");
  note(cudaGetLastError() == error && cudaGetLastError() == error, "a failed launch is sticky: " + part);
  cudaDeviceReset();
  note(cudaGetLastError() == cudaSuccess, "a reset forgets a failed launch: " + part);
  const Device<int> after(64);
  simt::launch(write_kernel, simt::LaunchShape{dim3(2), dim3(32), 0, stream}, after.data, 7);
  expect_same("a launch after a failed one", after.read(), std::vector<int>(64, 7));
}

// Warps.

__global__ void divergent_shuffle_kernel(float* out) {
  float value = 1;
  if (threadIdx.x < 24) value = __shfl_xor_sync(kAllLanes, value, 1);
  out[threadIdx.x] = value;
}
__global__ void lane_outside_mask_kernel() { __shfl_sync(0x0000ffffu, 1, 0); }
__global__ void source_outside_mask_kernel() {
  if (threadIdx.x < 16) __shfl_sync(0x0000ffffu, 1, 20);
}
__global__ void unequal_masks_kernel() { __ballot_sync(threadIdx.x < 16 ? 0x0001ffffu : kAllLanes, 1); }
__global__ void two_collectives_kernel() {
  if (threadIdx.x % 2 == 0)
    __ballot_sync(kAllLanes, 1);
  else
    __shfl_sync(kAllLanes, 1, 0);
}

CUDA_TEST(simt_warp_faults) {
  const Device<float> out(32);
  expect_failure("exited", 32, 0, divergent_shuffle_kernel, out.data);
  expect_failure("which the mask does not name", 32, 0, lane_outside_mask_kernel);
  expect_failure("reads lane 20, which is not in mask 0x0000ffff", 32, 0, source_outside_mask_kernel);
  expect_failure("meets", 32, 0, unequal_masks_kernel);
  expect_failure("meets", 32, 0, two_collectives_kernel);
}

__global__ void collectives_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  out[lane] = __shfl_sync(kAllLanes, lane, 5);
  out[32 + lane] = __shfl_up_sync(kAllLanes, lane, 3);
  out[64 + lane] = __shfl_down_sync(kAllLanes, lane, 3, 16);
  out[96 + lane] = static_cast<int>(__ballot_sync(kAllLanes, lane % 3 == 0));
  out[128 + lane] = static_cast<int>(__match_any_sync(kAllLanes, lane % 5));
  out[160 + lane] = __reduce_max_sync(kAllLanes, lane ^ 9);
  out[192 + lane] = __syncthreads_count(lane > 20);
  out[224 + lane] = __syncthreads_or(lane == 50) + 2 * __syncthreads_and(lane < 32);
}

CUDA_TEST(simt_collectives) {
  const Device<int> out(256);
  must(simt::launch(collectives_kernel, simt::LaunchShape{dim3(1), dim3(32), 0, stream}, out.data));
  std::vector<int> want(256);
  unsigned thirds = 0;
  for (int i = 0; i < 32; i += 3) thirds |= 1u << i;
  for (int i = 0; i < 32; i++) {
    unsigned same = 0;
    for (int j = i % 5; j < 32; j += 5) same |= 1u << j;
    const int values[8] = {
        5, i < 3 ? i : i - 3, i % 16 < 13 ? i + 3 : i, static_cast<int>(thirds), static_cast<int>(same), 31, 11, 2};
    for (int row = 0; row < 8; row++) want[static_cast<size_t>(row * 32 + i)] = values[row];
  }
  expect_same("collectives", out.read(), want);
}

__global__ void sums_kernel(const float* x, float* out) {
  float sum = x[threadIdx.x];
  for (int offset = 16; offset > 0; offset /= 2) sum = __fadd_rn(sum, __shfl_xor_sync(kAllLanes, sum, offset));
  out[2 * threadIdx.x] = sum;
  out[2 * threadIdx.x + 1] = simt::warp_sum(x[threadIdx.x]);
}

CUDA_TEST(simt_warp_sum) {
  const Device<float> x(normals(64)), out(128);
  must(simt::launch(sums_kernel, simt::LaunchShape{dim3(1), dim3(64), 0, stream}, x.data, out.data));
  const std::vector<float> sums = out.read();
  for (size_t i = 0; i < 64; i++)
    expect_same("warp_sum and shuffles", {sums[2 * i + 1]}, std::vector<float>{sums[2 * i]});
}

// Barriers.

__global__ void return_before_barrier_kernel() {
  if (threadIdx.x >= 32) return;
  __syncthreads();
}
__global__ void barrier_in_branch_kernel() {
  if (threadIdx.x < 32) __syncthreads();
  if (threadIdx.x >= 32) __syncwarp();
}
__global__ void two_barriers_kernel() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}

CUDA_TEST(simt_barrier_faults) {
  expect_failure("exited", 64, 0, return_before_barrier_kernel);
  expect_failure("exited", 64, 0, barrier_in_branch_kernel);
  expect_failure("meets __syncthreads", 64, 0, two_barriers_kernel);
}

// Memory.

__global__ void copy_not_waited_kernel(const int* in) {
  SIMT_SHARED_ARRAY(int, shared, 4 * 32);
  simt::cp_async16(shared + 4 * threadIdx.x, in + 4 * threadIdx.x);
  simt::cp_async_commit();
}
__global__ void ldmatrix_too_early_kernel(const int* in) {
  SIMT_SHARED_ARRAY(int, shared, 4 * 32);
  simt::cp_async16(shared + 4 * threadIdx.x, in + 4 * threadIdx.x);
  simt::cp_async_commit();
  simt::cp_async_wait<1>();
  __syncthreads();
  uint32_t matrix[4];
  simt::ldmatrix_x4(matrix, shared + 4 * threadIdx.x);
  simt::cp_async_wait<0>();
}
__global__ void ldmatrix_outside_kernel() {
  SIMT_SHARED_ARRAY(int, shared, 4 * 32);
  uint32_t matrix[4];
  simt::ldmatrix_x4(matrix, shared + 4 * threadIdx.x + 4);
}
__global__ void misaligned_copy_kernel(const int* in) {
  SIMT_SHARED_ARRAY(int, shared, 4 * 32);
  simt::cp_async16(shared + 4 * threadIdx.x, in + 4 * threadIdx.x + 1);
}
__global__ void misaligned_load_kernel(const int* in) { simt::ld_nc_16(in + 1); }
__global__ void shared_overflow_kernel() {
  SIMT_SHARED_ARRAY(int, shared, 32);
  volatile int* const past = shared;
  past[threadIdx.x + 1] = 0;
}
__global__ void too_much_shared_kernel() { simt::SharedCarver().take<float>(100); }
__global__ void global_overflow_kernel(int* out, int offset) {
  volatile int* const at = out;
  at[static_cast<int>(threadIdx.x) + offset] = 1;
}
__global__ void divide_kernel(int* out, int divisor) { out[threadIdx.x] = 100 / divisor; }
__global__ void deep_stack_kernel(int* out) {
  volatile char buffer[100000];
  for (int i = static_cast<int>(sizeof(buffer)) - 1; i >= 0; i -= 64) buffer[i] = 1;
  out[threadIdx.x] = buffer[0];
}

CUDA_TEST(simt_memory_faults) {
  const Device<int> in(256);
  expect_failure("cp.async not waited for", 32, 0, copy_not_waited_kernel, in.data);
  expect_failure("ldmatrix", 32, 0, ldmatrix_too_early_kernel, in.data);
  expect_failure("not in a shared array", 32, 0, ldmatrix_outside_kernel);
  expect_failure("not 16-byte aligned", 32, 0, misaligned_copy_kernel, in.data);
  expect_failure("not 16-byte aligned", 32, 0, misaligned_load_kernel, in.data);
  expect_failure("of 256 given to the launch", 32, 256, too_much_shared_kernel);
  if (kSanitized) return;
  expect_failure("outside an array of 128 bytes", 32, 0, shared_overflow_kernel);
  expect_failure("at byte 1024 of device memory of 1024 bytes", 32, 0, global_overflow_kernel, in.data, 256 - 31);
  expect_failure("in no device memory", 32, 0, global_overflow_kernel, static_cast<int*>(nullptr), 0);
  expect_failure("more stack", 32, 0, deep_stack_kernel, in.data);
  expect_failure("by zero", 32, 0, divide_kernel, in.data, 0);
}

__global__ void wait_and_add_kernel(int* out, const int* in) {
  const uint4 early = simt::ld_early_16(in + 4 * threadIdx.x);
  simt::wait_for_previous();
  out[threadIdx.x] += static_cast<int>(early.x);
}
__global__ void idle_kernel() {}
__global__ void wait_in_branch_kernel() {
  if (threadIdx.x < 40) simt::wait_for_previous();
}
__global__ void read_too_early_kernel(int* out, const int* in) {
  const int value = *static_cast<const volatile int*>(in);
  simt::wait_for_previous();
  out[threadIdx.x] = value;
}
__global__ void write_too_early_kernel(int* out) {
  out[threadIdx.x] = 0;
  simt::wait_for_previous();
}

// Launches a kernel of two blocks that may overlap the one before it: its error must contain `part`.
template <typename... Params, typename... Args>
void expect_overlap_failure(const std::string& part, void (*kernel)(Params...), Args... args) {
  simt::launch(kernel, simt::LaunchShape{dim3(2), dim3(64), 0, {stream, true}}, args...);
  const cudaError_t error = cudaStreamSynchronize(stream);
  const std::string text = cudaGetErrorString(error);
  note(error != cudaSuccess && text.find(part) != std::string::npos,
       "expected '" + part + "' but received '" + text + "'");
  cudaDeviceReset();
}

CUDA_TEST(simt_overlapping_launches) {
  const Device<int> in(std::vector<int>(256, 3)), out(std::vector<int>(64, 1));
  must(simt::launch(wait_and_add_kernel, simt::LaunchShape{dim3(1), dim3(64), 0, {stream, true}}, out.data, in.data));
  expect_same("a launch that waits", out.read(), std::vector<int>(64, 4));
  must(simt::launch(write_kernel, simt::LaunchShape{dim3(1), dim3(64), 0, {stream, false}}, out.data, 5));
  expect_same("a launch that need not wait", out.read(), std::vector<int>(64, 5));
  expect_overlap_failure("exits without wait_for_previous", idle_kernel);
  expect_overlap_failure("exits without wait_for_previous", wait_in_branch_kernel);
  if (kSanitized) return;
  expect_overlap_failure("before wait_for_previous", read_too_early_kernel, out.data, in.data);
  expect_overlap_failure("before wait_for_previous", write_too_early_kernel, out.data);
}

__global__ void fill_shared_kernel(float* out, bool is_first) {
  SIMT_SHARED_ARRAY(float, shared, 64);
  if (is_first) shared[threadIdx.x] = 1;
  out[threadIdx.x] = shared[threadIdx.x];
}

CUDA_TEST(simt_shared_memory_starts_as_nan) {
  const Device<float> out(64);
  for (const bool is_first : {true, false})
    must(simt::launch(fill_shared_kernel, simt::LaunchShape{dim3(1), dim3(64), 0, stream}, out.data, is_first));
  bool all_nan = true;
  for (const float value : out.read()) all_nan = all_nan && std::isnan(value);
  note(all_nan, "shared memory holds what an earlier launch wrote");
}

CUDA_TEST(simt_refused_launches) {
  const auto refused = [](dim3 grid, dim3 block, size_t shared_bytes) {
    const Device<int> out(64);
    const cudaError_t error =
        simt::launch(write_kernel, simt::LaunchShape{grid, block, shared_bytes, stream}, out.data, 1);
    note(error == cudaErrorInvalidConfiguration, "a shape that no device accepts was accepted");
    cudaDeviceReset();
  };
  refused(dim3(0), dim3(32), 0);
  refused(dim3(1), dim3(33), 0);
  refused(dim3(1), dim3(2048), 0);
  refused(dim3(1, 70000), dim3(32), 0);
  refused(dim3(1), dim3(32), 300 * 1024);
  const Device<int> out(64);
  note(simt::launch(write_kernel, simt::LaunchShape{dim3(1), dim3(32)}, out.data, 1) != cudaSuccess,
       "the default stream");
  cudaDeviceReset();
}

// Intrinsics.

CUDA_TEST(simt_half) {
  size_t bad = 0;
  for (uint32_t bits = 0; bits < 65536; bits++) {
    const float value = __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
    const uint32_t exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const float magnitude = exponent == 31 ? (mantissa == 0 ? INFINITY : NAN)
                            : exponent == 0
                                ? std::ldexp(static_cast<float>(mantissa), -24)
                                : std::ldexp(static_cast<float>(mantissa + 1024), static_cast<int>(exponent) - 25);
    const float want = bits & 0x8000 ? -magnitude : magnitude;
    const uint32_t back = __half_as_ushort(__float2half(value));
    bad += std::isnan(want) ? !std::isnan(value) || back != 0x7fff : value != want || back != bits;
    if (exponent >= 31 || (bits & 0x8000)) continue;
    // Halfway to the next value, and a little to either side.
    const float next = __half2float(__ushort_as_half(static_cast<unsigned short>(bits + 1)));
    const float middle = bits + 1 == 0x7c00 ? 65520.0f : (value + next) / 2;
    bad += __half_as_ushort(__float2half(std::nextafter(middle, 0.0f))) != bits;
    bad += __half_as_ushort(__float2half(std::nextafter(middle, 1e9f))) != bits + 1;
    bad += __half_as_ushort(__float2half(middle)) != (bits % 2 == 0 ? bits : bits + 1);
  }
  note(bad == 0, std::to_string(bad) + " conversions of 16-bit floats differ");
}

CUDA_TEST(simt_integers) {
  for (int i = 0; i < 200; i++) {
    const uint32_t a = engine(), b = engine(), shift = engine() % 32;
    uint32_t reversed = 0;
    for (int bit = 0; bit < 32; bit++) reversed |= (a >> bit & 1) << (31 - bit);
    const uint32_t funnel = shift == 0 ? b : b << shift | a >> (32 - shift);
    const uint32_t bytes[8] = {a & 255, a >> 8 & 255, a >> 16 & 255, a >> 24,
                               b & 255, b >> 8 & 255, b >> 16 & 255, b >> 24};
    const uint32_t permuted = bytes[6] | bytes[1] << 8 | bytes[4] << 16 | bytes[3] << 24;
    note(__brev(a) == reversed && __funnelshift_l(a, b, shift) == funnel && __byte_perm(a, b, 0x3416) == permuted &&
             __umulhi(a, b) == static_cast<uint32_t>(uint64_t{a} * b >> 32),
         "integer intrinsics of " + std::to_string(a) + ", " + std::to_string(b) + ", " + std::to_string(shift));
  }
}

}  // namespace
}  // namespace nds::cuda::test
#endif
