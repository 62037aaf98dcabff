// The emulated device itself: every fault that it promises to find is found, and named; failures are sticky until
// reset.
#include "harness.h"

#if defined(NDS_EMULATED)
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

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

// Host API.

CUDA_TEST(simt_copies_are_checked) {
  const Device<int> array(10);
  std::vector<int> host(20);
  const auto is_refused = [](cudaError_t error) {
    cudaDeviceReset();
    return error != cudaSuccess;
  };
  note(is_refused(cudaMemcpyAsync(array.data, host.data(), 44, cudaMemcpyHostToDevice, stream)), "a copy past the end");
  note(is_refused(cudaMemcpyAsync(host.data(), array.data + 5, 24, cudaMemcpyDeviceToHost, stream)),
       "a copy past the end");
  note(is_refused(cudaMemcpyAsync(host.data(), array.data, 4, cudaMemcpyHostToDevice, stream)), "the wrong direction");
  note(is_refused(cudaMemsetAsync(array.data + 5, 0, 24, stream)), "a memset past the end");
  note(is_refused(cudaFree(array.data + 1)), "cudaFree of the middle");
  note(is_refused(cudaMemcpy2DAsync(array.data, 20, host.data(), 8, 12, 2, cudaMemcpyHostToDevice, stream)),
       "a short pitch");
  must(cudaMemcpy2DAsync(array.data, 20, host.data(), 40, 8, 2, cudaMemcpyHostToDevice, stream));
  expect_same("rows", array.read(), {0, 0, -1, -1, -1, 0, 0, -1, -1, -1});
}

CUDA_TEST(simt_streams_are_lazy) {
  const Device<int> array(32);
  int result = 0;
  cudaEvent_t event;
  must(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  must(simt::launch(write_kernel, simt::LaunchShape{dim3(1), dim3(32), 0, stream}, array.data, 3));
  must(cudaMemcpyAsync(&result, array.data, 4, cudaMemcpyDeviceToHost, stream));
  must(cudaEventRecord(event, stream));
  must(cudaMemsetAsync(array.data, 0, 128, stream));
  note(result == -1, "a result before anybody waits is not poison");
  must(cudaEventSynchronize(event));
  note(result == 3, "a result after its event is missing");
  must(cudaMemcpy(&result, array.data, 4, cudaMemcpyDeviceToHost));
  note(result == 3, "work after the event has run");
  must(cudaDeviceSynchronize());
  must(cudaMemcpy(&result, array.data, 4, cudaMemcpyDeviceToHost));
  note(result == 0, "work has not run after cudaDeviceSynchronize");
  must(cudaEventDestroy(event));
}

CUDA_TEST(simt_streams_and_events) {
  cudaStream_t other;
  cudaEvent_t begin, end;
  must(cudaStreamCreateWithPriority(&other, cudaStreamNonBlocking, -1));
  must(cudaEventCreate(&begin));
  must(cudaEventCreate(&end));
  const Device<int> array(32);
  must(cudaEventRecord(begin, stream));
  must(simt::launch(write_kernel, simt::LaunchShape{dim3(1), dim3(32), 0, stream}, array.data, 1));
  must(cudaEventRecord(end, stream));
  must(cudaStreamWaitEvent(other, end));
  must(simt::launch(write_kernel, simt::LaunchShape{dim3(1), dim3(32), 0, other}, array.data, 2));
  must(cudaStreamSynchronize(other));
  expect_same("work that waits for an event", array.read(), std::vector<int>(32, 2));
  float milliseconds = -1;
  must(cudaEventElapsedTime(&milliseconds, begin, end));
  note(milliseconds >= 0, "an elapsed time is negative");
  must(cudaEventDestroy(begin));
  must(cudaEventDestroy(end));
  must(cudaStreamDestroy(other));
  note(cudaStreamSynchronize(other) != cudaSuccess, "a destroyed stream is accepted");
  cudaDeviceReset();
}

CUDA_TEST(simt_graphs) {
  cudaStream_t side;
  cudaEvent_t fork, join;
  must(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
  must(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
  must(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
  const Device<int> array(64);
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  cudaStreamCaptureStatus status;
  must(cudaStreamIsCapturing(stream, &status));
  note(status == cudaStreamCaptureStatusActive, "a captured stream does not say so");
  must(simt::launch(write_kernel, simt::LaunchShape{dim3(1), dim3(32), 0, stream}, array.data, 5));
  must(cudaEventRecord(fork, stream));
  must(cudaStreamWaitEvent(side, fork));
  must(simt::launch(write_kernel, simt::LaunchShape{dim3(1), dim3(32), 0, side}, array.data + 32, 6));
  must(cudaEventRecord(join, side));
  must(cudaStreamWaitEvent(stream, join));
  must(cudaStreamEndCapture(stream, &graph));
  must(cudaGraphInstantiate(&exec, graph));
  must(cudaGraphDestroy(graph));
  note(cudaStreamWaitEvent(side, fork) != cudaSuccess, "an event of an ended capture is accepted");
  cudaDeviceReset();
  std::vector<int> want(64, 5);
  std::fill(want.begin() + 32, want.end(), 6);
  expect_same("capturing runs nothing", array.read(), std::vector<int>(64, -1));
  for (int i = 0; i < 2; i++) {
    must(cudaMemsetAsync(array.data, 0, 256, stream));
    must(cudaGraphLaunch(exec, stream));
    expect_same("a graph", array.read(), want);
  }
  must(cudaGraphExecDestroy(exec));

  must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  void* memory;
  note(cudaMalloc(&memory, 16) != cudaSuccess, "cudaMalloc during a capture is accepted");
  cudaDeviceReset();
  must(cudaStreamEndCapture(stream, &graph));
  must(cudaGraphDestroy(graph));
  must(cudaEventDestroy(fork));
  must(cudaEventDestroy(join));
  must(cudaStreamDestroy(side));
}

CUDA_TEST(simt_devices_and_memory) {
  setenv("NDS_EMULATED_DEVICES", "2", 1);
  setenv("NDS_EMULATED_MEMORY_BYTES", "50000000,100000000", 1);
  int count = 0;
  must(cudaGetDeviceCount(&count));
  int reaches[2] = {-1, -1};
  must(cudaDeviceCanAccessPeer(&reaches[0], 0, 0));
  must(cudaDeviceCanAccessPeer(&reaches[1], 0, 1));
  note(reaches[0] == 0 && reaches[1] == 1, "devices that reach each other");
  note(count == 2 && cudaSetDevice(2) == cudaErrorInvalidDevice, "NDS_EMULATED_DEVICES is not heeded");
  note(cudaGetLastError() == cudaErrorInvalidDevice && cudaGetLastError() == cudaSuccess,
       "an invalid device is sticky");
  must(cudaSetDevice(1));
  size_t free_before, free_after, total;
  must(cudaMemGetInfo(&free_before, &total));
  note(total == 100000000 && free_before == total, "device 1 is not empty");
  cudaDeviceProp first_device;
  must(cudaGetDeviceProperties(&first_device, 0));
  note(first_device.totalGlobalMem == 50000000, "device 0 has the memory of device 1");
  void *large, *larger;
  must(cudaMalloc(&large, 60000000));
  note(cudaMalloc(&larger, 60000000) == cudaErrorMemoryAllocation, "more memory than there is");
  note(cudaGetLastError() == cudaErrorMemoryAllocation && cudaGetLastError() == cudaSuccess, "out of memory is sticky");
  must(cudaMemGetInfo(&free_after, &total));
  note(free_before - free_after >= 60000000 && free_before - free_after < 60001000, "memory is not counted");
  int first = 0, last = 0;
  must(cudaMemcpy(&first, large, 4, cudaMemcpyDeviceToHost));
  must(cudaMemcpy(&last, static_cast<uint8_t*>(large) + 59999996, 4, cudaMemcpyDeviceToHost));
  note(first == -1 && last == -1, "device memory does not start as poison");
  must(cudaFree(large));
  must(cudaMemGetInfo(&free_after, &total));
  note(free_before == free_after, "freed memory is not given back");
  must(cudaSetDevice(0));
  unsetenv("NDS_EMULATED_DEVICES");
  unsetenv("NDS_EMULATED_MEMORY_BYTES");
}

// What a process does with device memory of this one: 0 where it found `value`, and wrote value + 1.
int visit(const cudaIpcMemHandle_t& handle, int value) {
  void* address = nullptr;
  if (cudaIpcOpenMemHandle(&address, handle, cudaIpcMemLazyEnablePeerAccess) != cudaSuccess) return 1;
  int found = 0;
  const int next = value + 1;
  if (cudaMemcpy(&found, address, 4, cudaMemcpyDeviceToHost) != cudaSuccess || found != value) return 2;
  if (cudaMemcpy(address, &next, 4, cudaMemcpyHostToDevice) != cudaSuccess) return 3;
  if (cudaIpcCloseMemHandle(address) != cudaSuccess) return 4;
  return cudaIpcCloseMemHandle(address) == cudaErrorInvalidValue ? 0 : 5;
}

int visit_from_process(const cudaIpcMemHandle_t& handle, int value) {
  const pid_t child = fork();
  if (child == 0) _exit(visit(handle, value));
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

CUDA_TEST(simt_memory_of_another_process) {
  const Device<int> array(std::vector<int>(1000, 7));
  cudaIpcMemHandle_t handle;
  must(cudaIpcGetMemHandle(&handle, array.data));
  note(visit_from_process(handle, 7) == 0, "another process does not find the array");
  std::vector<int> want(1000, 7);
  want[0] = 8;
  expect_same("an array that another process wrote to", array.read(), want);
  must(cudaIpcGetMemHandle(&handle, array.data));
  note(visit_from_process(handle, 8) == 0, "a second handle");
  void* address = nullptr;
  const cudaError_t own = cudaIpcOpenMemHandle(&address, handle, cudaIpcMemLazyEnablePeerAccess);
  note(own == cudaErrorInvalidResourceHandle && cudaGetLastError() == own, "a process opens its own array");
  note(cudaIpcGetMemHandle(&handle, array.data + 1) == cudaErrorInvalidValue, "a handle of a part of an array");
  {
    const Device<int> freed(10);
    must(cudaIpcGetMemHandle(&handle, freed.data));
  }
  note(visit_from_process(handle, -1) == 1, "an array that is gone was opened");
  cudaGetLastError();
}

// Several OS threads.

__global__ void hand_over_kernel(uint32_t* mine, uint32_t* other, int* passed) {
  for (uint32_t round = 1; round <= 3; round++) {
    if (threadIdx.x == 0) {
      simt::store_release(other, round);
      if (!simt::spin_wait(mine, round, uint64_t{20} * 1000000000)) return;
      atomicAdd(passed, 1);
    }
    __syncwarp();
  }
}
__global__ void wait_in_vain_kernel(const uint32_t* flag, int* is_met) {
  if (threadIdx.x == 0) *is_met = simt::spin_wait(flag, 1, 1000000);
}

CUDA_TEST(simt_threads_wait_for_each_other) {
  const Device<uint32_t> flags(std::vector<uint32_t>(64, 0));
  const Device<int> passed(std::vector<int>(2, 0));
  const auto run = [&](int side) {
    cudaStream_t own;
    must(cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking));
    must(simt::launch(hand_over_kernel, simt::LaunchShape{dim3(1), dim3(32), 0, own}, flags.data + 32 * side,
                      flags.data + 32 * (1 - side), passed.data + side));
    must(cudaStreamSynchronize(own));
    must(cudaStreamDestroy(own));
  };
  std::thread other(run, 1);
  run(0);
  other.join();
  expect_same("flags between two OS threads", passed.read(), {3, 3});
  const Device<uint32_t> flag(std::vector<uint32_t>(1, 0));
  const Device<int> is_met(1);
  must(simt::launch(wait_in_vain_kernel, simt::LaunchShape{dim3(1), dim3(32), 0, stream}, flag.data, is_met.data));
  expect_same("a flag that nobody sets", is_met.read(), {0});
}

CUDA_TEST(simt_many_os_threads) {
  std::vector<std::thread> threads;
  std::vector<int> results(4, 0);
  for (int t = 0; t < 4; t++)
    threads.emplace_back([t, &results] {
      cudaStream_t own;
      if (cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking) != cudaSuccess) return;
      for (int i = 0; i < 20; i++) {
        int *array, value = 0;
        if (cudaMalloc(&array, 1024) != cudaSuccess) return;
        simt::launch(write_kernel, simt::LaunchShape{dim3(4), dim3(64), 0, own}, array, t);
        cudaMemcpyAsync(&value, array + 255, 4, cudaMemcpyDeviceToHost, own);
        cudaStreamSynchronize(own);
        results[static_cast<size_t>(t)] += value == t;
        cudaFree(array);
      }
      cudaStreamDestroy(own);
    });
  for (std::thread& thread : threads) thread.join();
  expect_same("launches from four OS threads", results, {20, 20, 20, 20});
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
