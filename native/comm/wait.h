// Waits for a counter in shared memory that another process advances: spins briefly, then sleeps in the kernel.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>

namespace nds::comm {

// Whether a counter has reached the target; counters only grow and may wrap around.
inline bool reached(uint32_t value, uint32_t target) { return static_cast<int32_t>(value - target) >= 0; }

// Sleeps while `word` equals `value`, at most until wake_sleepers(word) or for `milliseconds`; may return early.
void sleep_while(const std::atomic<uint32_t>& word, uint32_t value, int64_t milliseconds);
void wake_sleepers(const std::atomic<uint32_t>& word);

void relax_processor();
void yield_processor();

// Spin time of a wait before it sleeps.
struct SpinPolicy {
  int64_t nanoseconds = 50000;
  int pauses = 64;  // between two reads of the clock
  bool yields = false;
};

// Alone on its core, a rank spins at no cost. Where ranks are crowded, the awaited one may need the spinning core, or
// what spinning takes of their quota.
inline SpinPolicy spin_policy(bool crowded) { return crowded ? SpinPolicy{20000, 4, true} : SpinPolicy{}; }

// Max sleep: bounds the delay of events that wake no sleeper (a deadline, a killed peer).
constexpr int64_t kMaxSleepMs = 100;

// Advances the counter. The store is a release, paired with the acquire loads of wait_until and of whoever polls the
// word: a thread that sees the new value sees everything written before.
// Sequentially consistent, like the sleeper's side (SleeperCount, then the load before its sleep): either this sees the
// sleeper, or the sleeper sees the new value. Release and acquire alone would let the load pass the store before it.
inline void advance(std::atomic<uint32_t>& word, const std::atomic<uint32_t>& sleepers, uint32_t value) {
  word.store(value, std::memory_order_seq_cst);
  if (sleepers.load(std::memory_order_seq_cst) != 0) wake_sleepers(word);
}

// Counts a sleeper while it exists. The addition is ordered with advance(); the subtraction orders nothing: seen late,
// it costs a wake of nobody.
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

// Returns once `word` has reached `target`. check() runs before each sleep: it throws to give up, and returns the max
// milliseconds of that sleep.
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
