// The memory that the ranks of one host share: what lies where in it.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace nds::comm {

constexpr int kMaxRanks = 1024;
constexpr int64_t kSlotBytes = 256 * 1024;  // what one rank can publish in one phase

// What a rank says about a phase beside its data, so that ranks that have lost each other notice.
struct Description {
  uint32_t sequence;  // of the collective, counted from the communicator's first
  uint32_t kind;
  uint64_t bytes;
  uint32_t layout;  // hash of how the bytes are spread over ranks
  uint32_t unused;
};

// Why a rank left: its peers fail with the same code.
enum Departure : uint32_t { kClosed = 0, kTimedOut = 1, kMismatched = 2 };

// Written by its rank only, sleeper counts apart. Zero in a fresh file.
struct alignas(128) RankBlock {
  // Of phase p, descriptions[p % 2]; in the line that is polled, so that reading it costs nothing more.
  std::atomic<uint32_t> phase;
  Description descriptions[2];

  alignas(128) std::atomic<uint32_t> phase_sleepers;
  std::atomic<uint32_t> session_sleepers;

  // Communicators that this rank has begun to use, and the last one that it has left.
  alignas(128) std::atomic<uint32_t> session;
  std::atomic<uint32_t> left_session;
  std::atomic<uint32_t> left_because;    // a Departure
  std::atomic<uint32_t> first_phase[2];  // by session % 2: phase of this rank when it entered
  std::atomic<uint64_t> cpus[16];        // cores that this rank may run on, a bit each; all zero = unknown
};

static_assert(sizeof(Description) == 24 && sizeof(RankBlock) == 512, "the layout is shared between processes");
static_assert(std::atomic<uint32_t>::is_always_lock_free && std::atomic<uint64_t>::is_always_lock_free,
              "atomics must work across processes");

// One mapping of the shared file: a header page, [world_size] rank blocks, [world_size][2] slots.
class ShmRegion {
 public:
  // Grows the file where it is too small; ranks may do so at the same time.
  // @throws Error ERR_SYSTEM, ERR_MISMATCH when the file holds anything else than such a region for world_size ranks.
  ShmRegion(int fd, int world_size);
  ~ShmRegion();
  ShmRegion(const ShmRegion&) = delete;
  ShmRegion& operator=(const ShmRegion&) = delete;

  int world_size() const { return world_size_; }
  RankBlock& block(int rank) const { return blocks_[rank]; }
  // Phases alternate between a rank's two slots.
  uint8_t* slot(int rank, uint32_t phase) const { return slots_ + (int64_t{2} * rank + phase % 2) * kSlotBytes; }

 private:
  int world_size_;
  size_t size_;
  uint8_t* base_ = nullptr;
  RankBlock* blocks_ = nullptr;
  uint8_t* slots_ = nullptr;
};

}  // namespace nds::comm
