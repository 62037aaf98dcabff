// CUDA's device language for a plain C++ compiler. Threads of a block are fibers of one OS thread (simt_scheduler.cc):
// warp and block collectives really meet; what CUDA leaves undefined is reported as an error of the launch.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint3 {
  unsigned x, y, z;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace simt {

// Where a collective was called, for error messages.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

extern __thread uint3 thread_index;  // of the running fiber
extern __thread uint3 block_index;
extern __thread dim3 block_shape;
extern __thread dim3 grid_shape;

enum class Op : uint8_t { sync_warp, shuffle, vote, reduce_add, reduce_min, reduce_max, ldmatrix, mma };

void sync_threads(Site site);
void sync_warp(unsigned mask, Site site);
uint64_t shuffle(unsigned mask, uint64_t value, unsigned source_lane, Site site);
unsigned ballot(unsigned mask, bool predicate, Site site);
int64_t reduce(Op op, unsigned mask, int64_t value, Site site);
void fence();
void note_atomic(const void* address);
unsigned lane_id();
void report(const char* what, Site site);  // ends the launch with an error

// The same array in all threads of the block; key tells arrays apart. Elements start as poison (all bits set).
void* shared_array(const void* key, size_t bytes, Site site);
const void* carver_key(int index);

void cp_async16(void* shared, const void* global, bool valid = true, Site site = Site::here());
void cp_async_commit();
void cp_async_wait_pending(unsigned pending);
template <int kPending>
void cp_async_wait() {
  cp_async_wait_pending(kPending);
}

void ldmatrix_x4(uint32_t (&out)[4], const void* row, Site site = Site::here());
void ldmatrix_x4_trans(uint32_t (&out)[4], const void* row, Site site = Site::here());
void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Site site = Site::here());

class SharedCarver {
 public:
  template <typename T>
  T* take(int count, Site site = Site::here()) {
    return static_cast<T*>(shared_array(carver_key(num_taken_++), static_cast<size_t>(count) * sizeof(T), site));
  }

 private:
  int num_taken_ = 0;
};

template <typename T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <typename T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace simt

#define threadIdx (simt::thread_index)
#define blockIdx (simt::block_index)
#define blockDim (simt::block_shape)
#define gridDim (simt::grid_shape)

#define SIMT_SHARED_ARRAY(T, name, count) \
  static const char simt_key_##name = 0;  \
  T* const name = static_cast<T*>(simt::shared_array(&simt_key_##name, (count) * sizeof(T), simt::Site::here()))

inline void __syncthreads(simt::Site site = simt::Site::here()) { simt::sync_threads(site); }
inline void __syncwarp(unsigned mask = 0xffffffffu, simt::Site site = simt::Site::here()) {
  simt::sync_warp(mask, site);
}
inline void __threadfence() { simt::fence(); }
inline void __threadfence_system() { simt::fence(); }
inline void cudaGridDependencySynchronize() {}  // launches never overlap here
inline void cudaTriggerProgrammaticLaunchCompletion() {}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, simt::Site site = simt::Site::here()) {
  const unsigned lane = simt::lane_id(), first = lane & ~(width - 1u);
  return simt::from_bits<T>(simt::shuffle(mask, simt::to_bits(value), first + (source & (width - 1u)), site));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, simt::Site site = simt::Site::here()) {
  const unsigned lane = simt::lane_id(), source = lane ^ static_cast<unsigned>(lanes);
  const bool inside = source < (lane & ~(width - 1u)) + width;
  return simt::from_bits<T>(simt::shuffle(mask, simt::to_bits(value), inside ? source : lane, site));
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, simt::Site site = simt::Site::here()) {
  const unsigned lane = simt::lane_id(), source = lane + delta;
  const bool inside = source < (lane & ~(width - 1u)) + width;
  return simt::from_bits<T>(simt::shuffle(mask, simt::to_bits(value), inside ? source : lane, site));
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, simt::Site site = simt::Site::here()) {
  const unsigned lane = simt::lane_id();
  const bool inside = (lane & (width - 1u)) >= delta;
  return simt::from_bits<T>(simt::shuffle(mask, simt::to_bits(value), inside ? lane - delta : lane, site));
}
inline unsigned __ballot_sync(unsigned mask, bool predicate, simt::Site site = simt::Site::here()) {
  return simt::ballot(mask, predicate, site);
}
inline bool __any_sync(unsigned mask, bool predicate, simt::Site site = simt::Site::here()) {
  return simt::ballot(mask, predicate, site) != 0;
}
inline bool __all_sync(unsigned mask, bool predicate, simt::Site site = simt::Site::here()) {
  return simt::ballot(mask, predicate, site) == mask;
}
template <typename T>
T __reduce_add_sync(unsigned mask, T value, simt::Site site = simt::Site::here()) {
  return static_cast<T>(simt::reduce(simt::Op::reduce_add, mask, value, site));
}
template <typename T>
T __reduce_min_sync(unsigned mask, T value, simt::Site site = simt::Site::here()) {
  return static_cast<T>(simt::reduce(simt::Op::reduce_min, mask, value, site));
}
template <typename T>
T __reduce_max_sync(unsigned mask, T value, simt::Site site = simt::Site::here()) {
  return static_cast<T>(simt::reduce(simt::Op::reduce_max, mask, value, site));
}

// Relaxed, as on the device: they order nothing without fences.
template <typename T>
T atomicCAS(T* address, T expected, T desired) {
  simt::note_atomic(address);
  __atomic_compare_exchange(address, &expected, &desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <typename T>
T atomicAdd(T* address, T value) {
  simt::note_atomic(address);
  T seen, sum;
  __atomic_load(address, &seen, __ATOMIC_RELAXED);
  do sum = seen + value;
  while (!__atomic_compare_exchange(address, &seen, &sum, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return seen;
}
template <typename T>
T atomicMax(T* address, T value) {
  simt::note_atomic(address);
  T seen = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (seen < value &&
         !__atomic_compare_exchange_n(address, &seen, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return seen;
}
template <typename T>
T atomicOr(T* address, T bits) {
  simt::note_atomic(address);
  return __atomic_fetch_or(address, bits, __ATOMIC_RELAXED);
}
template <typename T>
T atomicExch(T* address, T value) {
  simt::note_atomic(address);
  return __atomic_exchange_n(address, value, __ATOMIC_RELAXED);
}

template <typename T>
T __ldg(const T* address) {
  if (reinterpret_cast<uintptr_t>(address) % alignof(T) != 0) simt::report("misaligned __ldg", simt::Site::here());
  return *address;
}

struct alignas(2) __nv_bfloat16 {
  uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
inline float __bfloat162float(__nv_bfloat16 value) {
  return simt::from_bits<float>(static_cast<uint64_t>(value.bits) << 16);
}
inline __nv_bfloat16 __float2bfloat16(float value) {  // to nearest, ties to even
  if (std::isnan(value)) return {0x7fff};
  const uint32_t bits = static_cast<uint32_t>(simt::to_bits(value));
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__float2bfloat16(x), __float2bfloat16(y)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 value) {
  return {__bfloat162float(value.x), __bfloat162float(value.y)};
}

struct alignas(2) __half {
  uint16_t bits;
};
inline float __half2float(__half value) {
  const unsigned exponent = value.bits >> 10 & 31, mantissa = value.bits & 1023;
  float result;
  if (exponent == 31) {
    result = mantissa == 0 ? INFINITY : NAN;
  } else {
    result = std::ldexp(static_cast<float>(exponent == 0 ? mantissa : mantissa | 1024), exponent == 0 ? -24 : static_cast<int>(exponent) - 25);
  }
  return (value.bits & 0x8000) != 0 ? -result : result;
}

using std::max;
using std::min;
inline float rsqrtf(float value) { return 1.0f / std::sqrt(value); }
inline float __expf(float value) { return std::exp(value); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline int __float2int_rn(float a) { return static_cast<int>(std::nearbyint(a)); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
