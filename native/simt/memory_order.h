// Atomics, fences and spin waits. Atomics are relaxed, as on the device: without fences they order nothing.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "simt/collectives.h"
#include "simt/types.h"

namespace simt {

template <typename T>
using Given = std::common_type_t<T>;  // T, not deduced from this argument

void fence();
void note_atomic(const void* address);
void yield();            // lets the other threads of the block, then other processes, run
uint64_t nanoseconds();  // of a monotonic clock
void check_alignment(const void* address, size_t bytes, const char* what, Site site);

// Atomically replaces *address by next(*address); returns the old value.
template <typename T, typename Fn>
T update(T* address, const Fn& next) {
  note_atomic(address);
  T seen, desired;
  __atomic_load(address, &seen, __ATOMIC_RELAXED);
  do desired = next(seen);
  while (!__atomic_compare_exchange(address, &seen, &desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return seen;
}

// Flags that another device or process writes. spin_wait returns false after timeout_ns.
inline uint32_t load_acquire(const uint32_t* address) { return __atomic_load_n(address, __ATOMIC_ACQUIRE); }
inline void store_release(uint32_t* address, uint32_t value) { __atomic_store_n(address, value, __ATOMIC_RELEASE); }
inline bool spin_wait(const uint32_t* flag, uint32_t at_least, uint64_t timeout_ns) {
  const uint64_t start = nanoseconds();
  while (static_cast<int32_t>(load_acquire(flag) - at_least) < 0) {
    if (nanoseconds() - start > timeout_ns) return false;
    yield();
  }
  return true;
}

}  // namespace simt

inline void __threadfence_block() { simt::fence(); }
inline void __threadfence() { simt::fence(); }
inline void __threadfence_system() { simt::fence(); }
inline void __nanosleep(unsigned) { simt::yield(); }

template <typename T>
T atomicCAS(T* address, simt::Given<T> expected, simt::Given<T> desired) {
  simt::note_atomic(address);
  __atomic_compare_exchange(address, &expected, &desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <typename T>
T atomicExch(T* address, simt::Given<T> value) {
  simt::note_atomic(address);
  T seen;
  __atomic_exchange(address, &value, &seen, __ATOMIC_RELAXED);
  return seen;
}
template <typename T>
T atomicAdd(T* address, simt::Given<T> value) {
  return simt::update(address, [value](T seen) { return static_cast<T>(seen + value); });
}
template <typename T>
T atomicSub(T* address, simt::Given<T> value) {
  return simt::update(address, [value](T seen) { return static_cast<T>(seen - value); });
}
template <typename T>
T atomicMin(T* address, simt::Given<T> value) {
  return simt::update(address, [value](T seen) { return value < seen ? value : seen; });
}
template <typename T>
T atomicMax(T* address, simt::Given<T> value) {
  return simt::update(address, [value](T seen) { return seen < value ? value : seen; });
}
template <typename T>
T atomicAnd(T* address, simt::Given<T> value) {
  return simt::update(address, [value](T seen) { return static_cast<T>(seen & value); });
}
template <typename T>
T atomicOr(T* address, simt::Given<T> value) {
  return simt::update(address, [value](T seen) { return static_cast<T>(seen | value); });
}
template <typename T>
T atomicXor(T* address, simt::Given<T> value) {
  return simt::update(address, [value](T seen) { return static_cast<T>(seen ^ value); });
}

// Loads and stores with cache hints, which are ignored.
template <typename T>
T __ldg(const T* address, simt::Site site = simt::Site::here()) {
  simt::check_alignment(address, alignof(T), "__ldg", site);
  return *address;
}
template <typename T>
T __ldcg(const T* address, simt::Site site = simt::Site::here()) {
  simt::check_alignment(address, alignof(T), "__ldcg", site);
  return *address;
}
template <typename T>
T __ldcs(const T* address, simt::Site site = simt::Site::here()) {
  simt::check_alignment(address, alignof(T), "__ldcs", site);
  return *address;
}
template <typename T>
void __stcg(T* address, simt::Given<T> value, simt::Site site = simt::Site::here()) {
  simt::check_alignment(address, alignof(T), "__stcg", site);
  *address = value;
}
template <typename T>
void __stcs(T* address, simt::Given<T> value, simt::Site site = simt::Site::here()) {
  simt::check_alignment(address, alignof(T), "__stcs", site);
  *address = value;
}

namespace simt {

inline uint4 ld_nc_16(const void* address, Site site = Site::here()) {
  check_alignment(address, 16, "ld_nc_16", site);
  uint4 value;
  std::memcpy(&value, address, 16);
  return value;
}

// Programmatic dependent launch. Launches never overlap here, but a thread of one that may must wait before it ends,
// and, with SIMT_PROTECT, before it touches device memory other than by ld_early_16.
void wait_for_previous();
void set_early_access(bool allowed);  // for a thread that has not waited
inline uint4 ld_early_16(const void* address, Site site = Site::here()) {
  check_alignment(address, 16, "ld_early_16", site);
  set_early_access(true);
  uint4 value;
  std::memcpy(&value, address, 16);
  set_early_access(false);
  return value;
}

}  // namespace simt
