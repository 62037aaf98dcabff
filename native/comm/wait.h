// Waiting for a counter in shared memory that another process advances: spin briefly, then sleep in the kernel.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>

namespace nds::comm {

// Counters only grow and may wrap around.
inline bool reached(uint32_t value, uint32_t target) { return static_cast<int32_t>(value - target) >= 0; }

// Sleeps while `word` is `value`, until wake_sleepers(word), or for `milliseconds`; may return early.
void sleep_while(const std::atomic<uint32_t>& word, uint32_t value, int64_t milliseconds);
void wake_sleepers(const std::atomic<uint32_t>& word);

void relax_processor();
void yield_processor();

// How long a wait spins before it sleeps.
struct SpinPolicy {
  int64_t nanoseconds = 50000;
  int pauses = 64;  // between two looks at the clock
  bool yields = false;
};

// With a core for every rank, spinning costs no one anything; without, the awaited rank needs the core that would spin.
inline SpinPolicy spin_policy(int num_ranks, int num_cores) {
  return num_ranks <= num_cores ? SpinPolicy{} : SpinPolicy{20000, 4, true};
}

// The longest sleep: what no one wakes a sleeper for (a deadline, a peer that was killed) is noticed after it.
constexpr int64_t kMaxSleepMs = 100;

// Advances the counter. Everything written before is seen by a thread that sees the new value.
// Sequentially consistent, as is the sleeper's side: either this sees the sleeper, or the sleeper sees the new value.
inline void advance(std::atomic<uint32_t>& word, const std::atomic<uint32_t>& sleepers, uint32_t value) {
  word.store(value, std::memory_order_seq_cst);
  if (sleepers.load(std::memory_order_seq_cst) != 0) wake_sleepers(word);
}

class SleeperCount {
 public:
  explicit SleeperCount(std::atomic<uint32_t>& count) : count_(count) {
    count_.fetch_add(1, std::memory_order_seq_cst);
  }
  ~SleeperCount() { count_.fetch_sub(1, std::memory_order_relaxed); }
  SleeperCount(const SleeperCount&) = delete;
  SleeperCount& operator=(const SleeperCount&) = delete;

 private:
  std::atomic<uint32_t>& count_;
};

// Returns once `word` has reached `target`. check(), called now and then meanwhile, throws to give up and
// returns the milliseconds that the next sleep may take.
template <typename Check>
void wait_until(const std::atomic<uint32_t>& word, std::atomic<uint32_t>& sleepers, uint32_t target,
                const SpinPolicy& policy, Check check) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::nanoseconds(policy.nanoseconds);
  do {
    for (int i = 0; i < policy.pauses; i++) {
      if (reached(word.load(std::memory_order_acquire), target)) return;
      relax_processor();
    }
    if (policy.yields) yield_processor();
  } while (std::chrono::steady_clock::now() < end);
  const SleeperCount sleeper(sleepers);
  while (true) {
    const int64_t milliseconds = check();
    const uint32_t value = word.load(std::memory_order_seq_cst);
    if (reached(value, target)) return;
    sleep_while(word, value, milliseconds < kMaxSleepMs ? milliseconds : kMaxSleepMs);
  }
}

}  // namespace nds::comm
