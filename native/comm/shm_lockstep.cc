// Lock-step of ranks over shared memory: how they enter, wait, disagree and leave.
#include "comm/shm_lockstep.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>

namespace nds::comm {
namespace {

void publish_cpus(RankBlock& block) {
  for (std::atomic<uint64_t>& word : block.cpus) word.store(0, std::memory_order_relaxed);
#ifdef __linux__
  // Affinity of the process's first thread: the calling thread may be pinned to one core.
  cpu_set_t set;
  if (sched_getaffinity(getpid(), sizeof(set), &set) != 0) return;
  for (int cpu = 0; cpu < 1024; cpu++) {
    if (CPU_ISSET(cpu, &set)) block.cpus[cpu / 64].fetch_or(uint64_t{1} << cpu % 64, std::memory_order_relaxed);
  }
#endif
}

}  // namespace

Lockstep::Lockstep(std::shared_ptr<ShmRegion> region, const CommOptions& options)
    : region_(std::move(region)),
      options_(options),
      rank_(options.rank),
      session_(region_->block(rank_).session.load(std::memory_order_relaxed) + 1) {}

Lockstep::~Lockstep() { leave_session(); }

void Lockstep::begin(CollectiveKind kind, int64_t bytes, uint32_t layout) {
  current_ = {current_.sequence + 1, static_cast<uint32_t>(kind), static_cast<uint64_t>(bytes), layout, 0};
  if (aborted_.load(std::memory_order_relaxed) || busy_) {
    throw Error("ERR_CLOSED", where() + "the communicator of " + rank_name(rank_) + " is closed");
  }
  busy_ = true;
  if (!entered_) enter_session();
}

void Lockstep::publish(int64_t bytes) {
  phase_++;
  mine().descriptions[phase_ % 2] = current_;
  // Releases the description and the outbox to inbox() of the peers.
  advance(mine().phase, mine().phase_sleepers, phase_);
  options_.progress.advance();
  stats_.exchanged_bytes += bytes;
  if (current_.kind == static_cast<uint32_t>(CollectiveKind::all_reduce)) stats_.all_reduce_bytes += bytes;
}

void Lockstep::publish_failure(const Error& error) {
  const std::string text = std::string(error.code) + "\n" + error.what();
  const size_t length = std::min(text.size(), static_cast<size_t>(kSlotBytes) - 1);
  std::memcpy(outbox(), text.data(), length);
  outbox()[length] = 0;
  departure_.store(departure_of(error.code), std::memory_order_relaxed);
  current_.failed = 1;
  publish(0);
}

// All ranks continue from the latest phase: they may have left the previous session in the middle of a collective, in
// different phases.
void Lockstep::enter_session() {
  RankBlock& block = mine();
  phase_ = block.phase.load(std::memory_order_relaxed);
  block.first_phase[session_ % 2].store(phase_, std::memory_order_relaxed);
  publish_cpus(block);
  // Releases first_phase and cpus, which peers load relaxed once they have seen this session.
  advance(block.session, block.session_sleepers, session_);
  uint32_t latest = phase_;
  for (int r = 0; r < world_size(); r++) {
    if (r != rank_) wait_for(r, &RankBlock::session, &RankBlock::session_sleepers, session_);
    const uint32_t theirs = region_->block(r).first_phase[session_ % 2].load(std::memory_order_relaxed);
    if (reached(theirs, latest)) latest = theirs;
  }
  // Checked here too, not only while waiting: a rank that leaves advances the counter that others wait for.
  const int absent = find_absent();
  if (absent >= 0) give_up(absent, rank_name(rank_) + " waited for all ranks");
  phase_ = latest;
  spin_policy_ = spin_policy(options_.crowded || world_size() > count_cores());
  entered_ = true;
}

void Lockstep::leave_session() {
  RankBlock& block = mine();
  block.left_because.store(departure_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  // Releases left_because to give_up(), and every phase that this rank has seen: find_absent() acquires.
  block.left_session.store(session_, std::memory_order_release);
  advance(block.session, block.session_sleepers, session_);
  wake_sleepers(block.phase);
}

// Number of cores that the ranks together may run on.
int Lockstep::count_cores() const {
  uint64_t all[16] = {};
  for (int r = 0; r < world_size(); r++) {
    uint64_t any = 0;
    for (int i = 0; i < 16; i++) {
      const uint64_t word = region_->block(r).cpus[i].load(std::memory_order_relaxed);
      all[i] |= word;
      any |= word;
    }
    if (any == 0) return static_cast<int>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  }
  int count = 0;
  for (const uint64_t word : all) count += __builtin_popcountll(word);
  return count;
}

// A rank that has left this session, or -1. Its loads pair with the stores of leave_session() and enter_session().
int Lockstep::find_absent() const {
  for (int r = 0; r < world_size(); r++) {
    const RankBlock& block = region_->block(r);
    if (r == rank_) continue;
    if (reached(block.left_session.load(std::memory_order_acquire), session_)) return r;
    if (reached(block.session.load(std::memory_order_acquire), session_ + 1)) return r;
  }
  return -1;
}

void Lockstep::wait_for(int peer, Counter counter, Counter sleepers, uint32_t target) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const int64_t limit_ms = step_ < 0 ? options_.startup_timeout_ms : options_.step_timeout_ms;
  RankBlock& block = region_->block(peer);
  const std::atomic<uint32_t>& word = block.*counter;
  options_.progress.wait(static_cast<Wait>(current_.kind), options_.first_rank + peer);
  wait_until(word, block.*sleepers, target, spin_policy_, [&]() -> int64_t {
    if (reached(word.load(std::memory_order_acquire), target)) return 0;
    const int64_t waited_ms = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count();
    const auto story = [&] {
      return rank_name(rank_) + " waited " + seconds_text(waited_ms) + " s for " + missing(peer, counter, target);
    };
    if (aborted_.load(std::memory_order_acquire)) fail(kClosed, story() + " until it was closed");
    // A rank that leaves after this phase has seen all ranks publish in it, so this rank, having acquired what it
    // released as it left, then sees that too. Otherwise the phase never ends.
    const int absent = find_absent();
    if (absent >= 0 && !reached(word.load(std::memory_order_acquire), target)) give_up(absent, story());
    if (waited_ms >= limit_ms) fail(kTimedOut, story());
    return limit_ms - waited_ms;
  });
  options_.progress.end_wait();
  stats_.wait_seconds += std::chrono::duration<double>(Clock::now() - start).count();
}

void Lockstep::give_up(int absent, const std::string& story) {
  const uint32_t why = region_->block(absent).left_because.load(std::memory_order_relaxed) % 4;
  fail(static_cast<Departure>(why), story + " until " + rank_name(absent) + departure_verb(why));
}

// Names of `peer` and of the other ranks whose counter has not reached the target.
std::string Lockstep::missing(int peer, Counter counter, uint32_t target) const {
  std::string names;
  for (int r = 0; r < world_size(); r++) {
    const bool came = r == rank_ || reached((region_->block(r).*counter).load(std::memory_order_relaxed), target);
    if (came && r != peer) continue;
    names += (names.empty() ? "" : ", ") + rank_name(r);
  }
  return names;
}

void Lockstep::disagree(int peer, const Description& theirs) {
  const bool looks_same =
      theirs.kind == current_.kind && theirs.bytes == current_.bytes && theirs.sequence == current_.sequence;
  fail(kMismatched, "Expected " + rank_name(peer) + " in the same collective as " + rank_name(rank_) +
                        " but received " + describe(theirs) +
                        (looks_same ? ", spread differently over the ranks" : ""));
}

// The peer's slot holds "CODE\nmessage".
void Lockstep::fail_like(int peer) {
  const std::string text(reinterpret_cast<const char*>(region_->slot(peer, phase_)));
  const size_t end = std::min(text.find('\n'), text.size());
  departure_.store(departure_of(text.substr(0, end).c_str()), std::memory_order_relaxed);
  aborted_.store(true, std::memory_order_release);
  throw Error(departure_code(departure_),
              text.substr(std::min(end + 1, text.size())) + " (as " + rank_name(peer) + " says)");
}

// Does not leave the session yet, so that other ranks find the cause themselves, not just that this rank gave up.
void Lockstep::fail(Departure why, const std::string& message) {
  // `aborted_` only ends waits: whoever sees it set reads nothing else that was written before.
  departure_.store(why, std::memory_order_relaxed);
  aborted_.store(true, std::memory_order_release);
  throw Error(departure_code(why), where() + message);
}

void Lockstep::abort() {
  aborted_.store(true, std::memory_order_release);
  leave_session();
  for (int r = 0; r < world_size(); r++) {
    wake_sleepers(region_->block(r).phase);
    wake_sleepers(region_->block(r).session);
  }
}

Communicator::Stats Lockstep::take_stats() {
  const Communicator::Stats stats = stats_;
  stats_ = {};
  return stats;
}

}  // namespace nds::comm
