// The emulated device's host API: copies, streams, graphs, memory, and several OS threads.
#include "harness.h"

#if defined(NDS_EMULATED)
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

namespace nds::cuda::test {
namespace {

__global__ void write_kernel(int* out, int value) { out[blockIdx.x * blockDim.x + threadIdx.x] = value; }

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

}  // namespace
}  // namespace nds::cuda::test
#endif
