// What kernel sources include: CUDA's own headers under nvcc, the emulation under any other compiler, and thin wrappers
// where CUDA needs inline PTX or a different spelling.
#pragma once
#include <cstdint>

#if defined(__CUDACC__)

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define SIMT_SHARED_ARRAY(T, name, count) __shared__ __align__(16) T name[count]

namespace simt {

__device__ inline uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// Hands out 16-byte aligned arrays of the dynamic shared memory of a block; all its threads must take them in the same
// order.
class SharedCarver {
 public:
  __device__ SharedCarver() {
    extern __shared__ __align__(128) unsigned char simt_dynamic_shared[];
    next_ = simt_dynamic_shared;
  }
  template <typename T>
  __device__ T* take(int count) {
    T* array = reinterpret_cast<T*>(next_);
    next_ += (count * sizeof(T) + 15) / 16 * 16;
    return array;
  }

 private:
  unsigned char* next_;
};

// Asynchronous copy of 16 bytes to shared memory; zeros when !valid.
__device__ inline void cp_async16(void* shared, const void* global, bool valid = true) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
}
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most the newest kPending groups of this thread are in flight. Other threads see the copies after a
// barrier.
template <int kPending>
__device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
// Waits for all copies of this thread, committed or not.
__device__ inline void cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Loads 16 bytes without allocating in L1: for data that is not written during the launch nor read again soon, e.g.
// weights.
__device__ inline uint4 ld_nc_16(const void* address) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(address));
  return value;
}

// Programmatic dependent launch, which begins with sm_90. A kernel that may overlap the launch before it calls this in
// every thread before it reads or writes device memory. It returns when that launch is complete and its writes are
// visible. That launch waited for the one before it, or did not overlap it: so all earlier ones are complete too. Then
// the next launch may start, once all blocks of this one have: at most two run, and none takes the place of blocks that
// it waits for.
__device__ inline void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}
// Loads 16 bytes that no launch in flight writes, e.g. weights: the one access that may stand before
// wait_for_previous(). nvcc may move `ld.global.nc` and __ldg behind the wait, but not this.
__device__ inline uint4 ld_early_16(const void* address) {
  uint4 value;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(address)
               : "memory");
  return value;
}

// Acquire and release, at system scope, of a flag shared with another device or process: writes before the store are
// visible after a load that sees it.
__device__ inline uint32_t load_acquire(const uint32_t* address) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
  return value;
}
__device__ inline void store_release(uint32_t* address, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}
__device__ inline uint64_t nanoseconds() {
  uint64_t time;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
  return time;
}
// Waits until *flag, a count that only grows (modulo 2^32), is at least `at_least`. False after timeout_ns. Blocks of
// one launch must not wait for each other: the emulation runs them one after the other.
__device__ inline bool spin_wait(const uint32_t* flag, uint32_t at_least, uint64_t timeout_ns) {
  const uint64_t start = nanoseconds();
  while (static_cast<int32_t>(load_acquire(flag) - at_least) < 0) {
    if (nanoseconds() - start > timeout_ns) return false;
  }
  return true;
}

// Sum over the 32 lanes of a warp, equal in each: lanes 16 apart are added first, then 8, 4, 2, 1. The emulation does
// it in one step.
__device__ inline float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value = __fadd_rn(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

// Four 8 x 8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8.
__device__ inline void ldmatrix_x4(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ inline void ldmatrix_x4_trans(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

// c [16, 8] += a [16, 16] @ b [16, 8], in the fragments of mma.m16n8k16.
__device__ inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Where a launch stands: its stream, and whether it may start while the launch before it runs (programmatic dependent
// launch). Then its kernel must call wait_for_previous().
struct LaunchPlace {
  LaunchPlace(cudaStream_t stream, bool overlap_previous = false)
      : stream(stream), overlap_previous(overlap_previous) {}
  cudaStream_t stream;
  bool overlap_previous;
};

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;
  LaunchPlace place = nullptr;
};

template <typename... Params, typename... Args>
cudaError_t launch(void (*kernel)(Params...), const LaunchShape& shape, Args&&... args) {
  if (shape.shared_bytes > 48 * 1024) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = shape.place.stream;
  config.attrs = &attribute;
  config.numAttrs = shape.place.overlap_previous ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
}

}  // namespace simt

#else

#include "simt/device.h"
#include "simt/runtime.h"

#endif
