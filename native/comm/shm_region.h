// Layout of the memory that the ranks of one host share.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "comm/collective.h"

namespace nds::comm {

constexpr int kMaxRanks = 1024;
constexpr int64_t kSlotBytes = 256 * 1024;  // max bytes that one rank publishes in one phase

// State of one rank. Only that rank writes it, except for sleeper counts. Zero in a fresh file.
struct alignas(128) RankBlock {
  // descriptions[p % 2] is that of phase p. It shares the polled line, so that reading it costs nothing extra.
  std::atomic<uint32_t> phase;
  Description descriptions[2];

  alignas(128) std::atomic<uint32_t> phase_sleepers;
  std::atomic<uint32_t> session_sleepers;

  // Latest communicator that this rank has entered or left, and the last one that it has left; numbered from 1.
  alignas(128) std::atomic<uint32_t> session;
  std::atomic<uint32_t> left_session;
  std::atomic<uint32_t> left_because;    // a Departure
  std::atomic<uint32_t> first_phase[2];  // [session % 2] phase of this rank when it entered
  std::atomic<uint64_t> cpus[16];        // bit mask of the cores that this rank may run on; all zero = unknown
};

static_assert(sizeof(Description) == 24 && sizeof(RankBlock) == 512, "the layout is shared between processes");
static_assert(std::atomic<uint32_t>::is_always_lock_free && std::atomic<uint64_t>::is_always_lock_free,
              "atomics must work across processes");

// One mapping of the shared file: a header page, [world_size] rank blocks, [world_size][2] slots.
class ShmRegion {
 public:
  // Grows the file if it is too small; ranks may do so concurrently.
  // @throws Error ERR_SYSTEM, ERR_MISMATCH if the file holds anything but such a region for world_size ranks,
  // ERR_INTERNAL for a world size outside 1 … kMaxRanks.
  ShmRegion(int fd, int world_size);
  // Memory of a rank that shares none.
  static std::shared_ptr<ShmRegion> of_one_rank();
  ~ShmRegion();
  ShmRegion(const ShmRegion&) = delete;
  ShmRegion& operator=(const ShmRegion&) = delete;

  int world_size() const { return world_size_; }
  RankBlock& block(int rank) const { return blocks_[rank]; }
  // Slot of a phase; phases alternate between a rank's two slots.
  uint8_t* slot(int rank, uint32_t phase) const { return slots_ + (int64_t{2} * rank + phase % 2) * kSlotBytes; }

 private:
  explicit ShmRegion(int world_size);
  void map(int fd, int flags);

  int world_size_;
  size_t block_bytes_, size_;
  uint8_t* base_ = nullptr;
  RankBlock* blocks_ = nullptr;
  uint8_t* slots_ = nullptr;
};

}  // namespace nds::comm
