// Collectives of a warp or block: barriers, shuffles, votes, reductions, shared arrays, cp.async, ldmatrix and mma. The
// mask of a warp collective is explicit, and each lane in it must arrive.
#pragma once
#include <cstddef>
#include <cstdint>

#include "simt/bits.h"

namespace simt {

// Where a collective was called, for error messages.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

enum class Op : uint8_t {
  sync_warp,
  shuffle,
  vote,
  match,
  reduce_add,
  reduce_min,
  reduce_max,
  warp_sum,
  ldmatrix,
  mma
};
enum class Vote : uint8_t { count, any, all };

void sync_threads(Site site);
int sync_threads_vote(Vote vote, bool predicate, Site site);
void sync_warp(unsigned mask, Site site);
uint64_t shuffle(unsigned mask, uint64_t value, unsigned source_lane, Site site);
unsigned ballot(unsigned mask, bool predicate, Site site);
unsigned match(unsigned mask, uint64_t value, Site site);
int64_t reduce(Op op, unsigned mask, int64_t value, Site site);
float warp_sum(float value, Site site = Site::here());
unsigned lane_id();
[[noreturn]] void report(const char* what, Site site);  // ends the launch with an error

// The block's shared array for a key, the same in all threads. Elements start as poison (all bits set).
void* shared_array(const void* key, size_t bytes, Site site);
const void* carver_key(int index);

void cp_async16(void* shared, const void* global, bool valid = true, Site site = Site::here());
void cp_async_commit();
void cp_async_wait_pending(unsigned pending);
template <int kPending>
void cp_async_wait() {
  cp_async_wait_pending(kPending);
}
inline void cp_async_wait_all() {
  cp_async_commit();
  cp_async_wait_pending(0);
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

}  // namespace simt

#define SIMT_SHARED_ARRAY(T, name, count) \
  static const char simt_key_##name = 0;  \
  T* const name = static_cast<T*>(simt::shared_array(&simt_key_##name, (count) * sizeof(T), simt::Site::here()))

inline void __syncthreads(simt::Site site = simt::Site::here()) { simt::sync_threads(site); }
inline int __syncthreads_count(int predicate, simt::Site site = simt::Site::here()) {
  return simt::sync_threads_vote(simt::Vote::count, predicate != 0, site);
}
inline int __syncthreads_or(int predicate, simt::Site site = simt::Site::here()) {
  return simt::sync_threads_vote(simt::Vote::any, predicate != 0, site);
}
inline int __syncthreads_and(int predicate, simt::Site site = simt::Site::here()) {
  return simt::sync_threads_vote(simt::Vote::all, predicate != 0, site);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, simt::Site site = simt::Site::here()) {
  simt::sync_warp(mask, site);
}

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
inline unsigned __ballot_sync(unsigned mask, int predicate, simt::Site site = simt::Site::here()) {
  return simt::ballot(mask, predicate != 0, site);
}
inline int __any_sync(unsigned mask, int predicate, simt::Site site = simt::Site::here()) {
  return simt::ballot(mask, predicate != 0, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, simt::Site site = simt::Site::here()) {
  return simt::ballot(mask, predicate != 0, site) == mask;
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value, simt::Site site = simt::Site::here()) {
  return simt::match(mask, simt::to_bits(value), site);
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
