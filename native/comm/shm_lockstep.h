// Lock-step of ranks over shared memory. A collective is a run of phases; in each, every rank publishes and reads.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "comm/collective.h"
#include "comm/communicator.h"
#include "comm/shm_region.h"
#include "comm/wait.h"
#include "core/error.h"

namespace nds::comm {

// A phase on one rank: write to outbox(), publish(), read inbox(r) of *every* other rank r. Reading all of them makes
// two slots enough: a rank that has seen every rank's phase p + 1 knows that no rank still reads its phase p.
class Lockstep {
 public:
  Lockstep(std::shared_ptr<ShmRegion> region, const CommOptions& options);
  ~Lockstep();
  Lockstep(const Lockstep&) = delete;
  Lockstep& operator=(const Lockstep&) = delete;

  // Enters a collective; the first one waits for all ranks. layout: hash of what else the ranks must agree on.
  void begin(CollectiveKind kind, int64_t bytes, uint32_t layout);
  void end() { busy_ = false; }

  // Buffer of the next phase's data, kSlotBytes.
  uint8_t* outbox() const { return region_->slot(rank_, phase_ + 1); }
  // Publishes the first `bytes` of the outbox and makes its phase the current one.
  void publish(int64_t bytes);
  // Publishes an error in place of a phase's data: peers that wait for it throw the same code.
  void publish_failure(const Error& error);
  // Data that another rank published in the current phase; waits for it. The acquire load pairs with the store of the
  // peer's advance() in publish(). It also lets this rank overwrite its slot of the phase before: the peer read that
  // slot before it published, and its store keeps its earlier loads before it.
  const uint8_t* inbox(int peer) {
    if (!reached(region_->block(peer).phase.load(std::memory_order_acquire), phase_))
      wait_for(peer, &RankBlock::phase, &RankBlock::phase_sleepers, phase_);
    check_agreement(peer);
    return region_->slot(peer, phase_);
  }

  void set_step(int64_t step) { step_ = step; }
  int64_t step() const { return step_; }
  const Description& current() const { return current_; }
  void abort();  // from any thread
  Communicator::Stats take_stats();
  int rank() const { return rank_; }
  int world_size() const { return region_->world_size(); }

 private:
  using Counter = std::atomic<uint32_t> RankBlock::*;

  RankBlock& mine() const { return region_->block(rank_); }
  void enter_session();
  void leave_session();
  int count_cores() const;
  int find_absent() const;
  // Waits until the peer's counter has reached the target.
  void wait_for(int peer, Counter counter, Counter sleepers, uint32_t target);
  [[noreturn]] void give_up(int absent, const std::string& story);
  void check_agreement(int peer) {
    const Description& theirs = region_->block(peer).descriptions[phase_ % 2];
    if (!same_collective(theirs, current_)) disagree(peer, theirs);
    if (theirs.failed != 0) fail_like(peer);
  }
  std::string missing(int peer, Counter counter, uint32_t target) const;
  std::string rank_name(int local_rank) const { return "rank " + std::to_string(options_.first_rank + local_rank); }
  [[noreturn]] void disagree(int peer, const Description& theirs);
  [[noreturn]] void fail_like(int peer);
  [[noreturn]] void fail(Departure why, const std::string& message);
  std::string where() const { return place_of(step_, current_); }

  const std::shared_ptr<ShmRegion> region_;
  const CommOptions options_;
  const int rank_;
  const uint32_t session_;  // number of this communicator among the rank's own on this memory, from 1
  SpinPolicy spin_policy_;
  bool entered_ = false;
  bool busy_ = false;  // in a collective; stays true if an exception left it
  uint32_t phase_ = 0;
  Description current_{};
  int64_t step_ = -1;
  std::atomic<bool> aborted_{false};
  std::atomic<Departure> departure_{kClosed};
  Communicator::Stats stats_;
};

}  // namespace nds::comm
