// What a rank is doing, in memory that its launcher reads: phase, step, operator, awaited rank.
#pragma once
#include <atomic>
#include <cstdint>

namespace nds {

// One rank's block of the state memory; zero before the rank's first load. launcher/rank-state.ts reads this layout.
// No lock: each word is meaningful alone, and the launcher reports words only once they have all stood still, so that a
// block that it reads half old and half new is one that moves.
struct alignas(256) StateBlock {
  std::atomic<uint64_t> position;     // bits 0-31 count all progress; 32-38 operator + 1, 39 is draft, 40-63 layer + 1
  std::atomic<uint64_t> waiting;      // bits 0-31 awaited rank + 1; 32-39 what it is awaited in; 0 = no wait
  std::atomic<uint64_t> step;         // oldest step in flight, else the last one, + 1; 0 = none yet
  std::atomic<uint64_t> failed_step;  // + 1; 0 = none has failed since the last load began
  std::atomic<uint32_t> num_loads;    // running
  std::atomic<uint32_t> num_steps;    // in flight
  std::atomic<uint32_t> num_loads_begun;
};

static_assert(sizeof(StateBlock) == 256, "the launcher reads this layout");
static_assert(std::atomic<uint32_t>::is_always_lock_free && std::atomic<uint64_t>::is_always_lock_free,
              "atomics must work across processes");

// What a rank waits in; the first three are comm::CollectiveKind.
enum class Wait : uint32_t { all_reduce = 1, exchange_rows = 2, all_gather = 3, device = 4 };

// Follows the OpKinds: the ranks compare a step's hashes.
constexpr int kAgreementOp = 100;

// Writes a rank's block; a no-op without one. Runners of one process share the block: they may lose each other's counts
// of progress, but not that there was some.
class Progress {
 public:
  Progress() = default;
  explicit Progress(StateBlock* block) : block_(block) {}
  StateBlock* block() const { return block_; }
  // The same rank, in operators of its draft model.
  Progress of_draft() const {
    Progress draft = *this;
    draft.is_draft_ = true;
    return draft;
  }

  // Enters an operator: an OpKind, or kAgreementOp. layer: -1 = none.
  void enter(int op, int layer) const {
    if (block_ == nullptr) return;
    const uint32_t place =
        static_cast<uint32_t>(op + 1) | (is_draft_ ? 1u << 7 : 0u) | static_cast<uint32_t>(layer + 1) << 8;
    move(uint64_t{place} << 32);
  }

  // A phase of a collective, a portion of a load.
  void advance() const {
    if (block_ != nullptr) move(block_->position.load(std::memory_order_relaxed) & ~uint64_t{UINT32_MAX});
  }

  // rank: -1 = none that can be named.
  void wait(Wait in, int rank) const {
    if (block_ == nullptr) return;
    const uint64_t waiting = uint64_t{static_cast<uint32_t>(in)} << 32 | static_cast<uint32_t>(rank + 1);
    block_->waiting.store(waiting, std::memory_order_relaxed);
  }
  void end_wait() const {
    if (block_ != nullptr) block_->waiting.store(0, std::memory_order_relaxed);
  }

  void begin_load() const {
    if (block_ == nullptr) return;
    block_->failed_step.store(0, std::memory_order_relaxed);
    block_->num_loads_begun.fetch_add(1, std::memory_order_relaxed);
    block_->num_loads.fetch_add(1, std::memory_order_relaxed);
    move(0);
  }
  void end_load() const {
    if (block_ == nullptr) return;
    end_wait();
    block_->num_loads.fetch_sub(1, std::memory_order_relaxed);
    advance();
  }

  // oldest: the oldest step in flight.
  void begin_step(int64_t oldest) const {
    if (block_ == nullptr) return;
    set_step(oldest);
    block_->num_steps.fetch_add(1, std::memory_order_relaxed);
    move(0);
  }
  // oldest: the oldest step that is left in flight, else the one that ended.
  void end_step(int64_t oldest) const {
    if (block_ == nullptr) return;
    end_wait();
    block_->num_steps.fetch_sub(1, std::memory_order_relaxed);
    set_step(oldest);
    advance();
  }
  void fail_step(int64_t step) const {
    if (block_ != nullptr) block_->failed_step.store(static_cast<uint64_t>(step + 1), std::memory_order_relaxed);
  }

 private:
  void move(uint64_t place) const {
    const uint32_t count = static_cast<uint32_t>(block_->position.load(std::memory_order_relaxed)) + 1;
    block_->position.store(place | count, std::memory_order_relaxed);
  }
  void set_step(int64_t step) const { block_->step.store(static_cast<uint64_t>(step + 1), std::memory_order_relaxed); }

  StateBlock* block_ = nullptr;
  bool is_draft_ = false;
};

}  // namespace nds
