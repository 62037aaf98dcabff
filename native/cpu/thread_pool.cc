// The threads of a rank: they run one function together, or stages whose parts they claim; who waits spins, then
// sleeps.
#include "cpu/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>

#if defined(__linux__)
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <pthread.h>
#endif

#include "core/error.h"

namespace nds::cpu {
namespace {

// Bounds of the adaptive spin time before a waiting thread sleeps: a wait that spun in vain halves it, one that did not
// doubles it.
struct SpinTimes {
  int64_t min_ns, max_ns;
};
// The min must outlast waking a thread, some 5 to 70 µs: otherwise one thread that slept makes the others sleep at the
// next barrier, and so on forever.
constexpr SpinTimes kWithACoreEach{80'000, 160'000};
// Short: the awaited thread may not run while this one spins.
constexpr SpinTimes kCrowded{5'000, 50'000};

inline void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Time of one spin of wait_past, a load and a pause: 10 to 60 ns on x86-64, where the pause is long, some 1 ns on
// arm64. Minimum over several series, since this thread may be interrupted.
double spin_ns() {
  using Clock = std::chrono::steady_clock;
  constexpr int kNumSeries = 8, kCount = 100;
  const std::atomic<uint32_t> word{0};
  double shortest = 1000;
  for (int series = 0; series < kNumSeries; series++) {
    const auto start = Clock::now();
    for (int i = 0; i < kCount && word.load(std::memory_order_acquire) == 0; i++) pause_briefly();
    shortest = std::min(shortest, std::chrono::duration<double, std::nano>(Clock::now() - start).count() / kCount);
  }
  return std::max(1.0, shortest);
}

}  // namespace

// A number that one thread sets and others wait on. Neither side makes a system call while all are awake.
class Signal {
 public:
  Signal(int min_spins, int max_spins) : spins_(max_spins), min_spins_(min_spins), max_spins_(max_spins) {}

  // The acquire pairs with the store of set().
  uint64_t value() const { return value_.load(std::memory_order_acquire); }

  // Waits until the value is no longer `old`.
  void wait_past(uint64_t old) {
    const int spins = spins_.load(std::memory_order_relaxed);
    for (int i = 0; i < spins; i++) {
      if (value() != old) {
        spins_.store(std::min(spins * 2, max_spins_), std::memory_order_relaxed);
        return;
      }
      pause_briefly();
    }
    spins_.store(std::max(spins / 2, min_spins_), std::memory_order_relaxed);
    // Sequentially consistent with set(), here and in sleep_while: either set() sees this sleeper, or this thread sees
    // the new value.
    sleepers_.fetch_add(1);
    sleep_while(old);
    sleepers_.fetch_sub(1);
  }

  // Sets the value: a release, so that everything written before is visible to a thread that returns from wait_past.
  void set(uint64_t value) {
    value_.store(value);
    if (sleepers_.load() > 0) wake();
  }

 private:
#if defined(__linux__)
  // The lower half of the value. A sleeper would miss a change by a multiple of 2^32, which no run of stages makes
  // while a thread falls asleep.
  static_assert(sizeof(std::atomic<uint64_t>) == 8 && std::endian::native == std::endian::little);
  uint32_t* futex() { return reinterpret_cast<uint32_t*>(&value_); }
  void sleep_while(uint64_t old) {
    while (value_.load() == old)
      syscall(SYS_futex, futex(), FUTEX_WAIT_PRIVATE, static_cast<uint32_t>(old), nullptr, nullptr, 0);
  }
  void wake() { syscall(SYS_futex, futex(), FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0); }
#else
  void sleep_while(uint64_t old) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return value_.load() != old; });
  }
  void wake() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
    }
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
#endif

  alignas(64) std::atomic<uint64_t> value_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<int> spins_;
  const int min_spins_, max_spins_;
};

namespace {

void name_this_thread(int tid) {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), ("nds-worker-" + std::to_string(tid)).substr(0, 15).c_str());
#else
  static_cast<void>(tid);
#endif
}

void pin(std::thread::native_handle_type thread, int core) {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  if (pthread_setaffinity_np(thread, sizeof set, &set) != 0) {
    throw Error("ERR_SYSTEM", "Expected to pin a thread to core " + std::to_string(core) + " but the system refused");
  }
#else
  static_cast<void>(thread);
  throw Error("ERR_SYSTEM", "Expected a system that pins threads but was asked for core " + std::to_string(core));
#endif
}

// Lets one thread through at a time, in order of arrival: a plain mutex would let a thread that leaves enter again
// before those that sleep.
class Turns {
 public:
  // before_wait, unless null: called if the turn is another thread's.
  void enter(const std::function<void()>& before_wait) {
    std::unique_lock<std::mutex> lock(mutex_);
    const uint64_t mine = next_++;
    if (serving_ == mine) return;
    if (before_wait != nullptr) {
      lock.unlock();
      before_wait();
      lock.lock();
    }
    changed_.wait(lock, [&] { return serving_ == mine; });
  }
  void leave() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      serving_++;
    }
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t next_ = 0, serving_ = 0;
};

// Of all shared pools of the process. Never destroyed: threads may outlive the end of main.
Turns& turns() {
  static Turns& instance = *new Turns;
  return instance;
}

}  // namespace

struct ThreadPool::Shared {
  Shared(int num_threads, int min_spins, int max_spins)
      : size(num_threads), stage(min_spins, max_spins), met(min_spins, max_spins), claims(num_threads) {
    stage.set(uint64_t{1} << kNumberShift);
  }

  // The stage at hand, as Signal `stage` holds it. Stages are numbered from 1 through all runs.
  static constexpr uint64_t kOpen = 1, kOwnPartsOnly = 2, kStopping = UINT64_MAX - kOpen;
  static constexpr int kNumberShift = 2;

  struct alignas(64) Claim {
    std::atomic<uint64_t> stage{0};  // the newest in which this part was begun
  };

  const int size;
  Signal stage;
  Signal met;  // counts barriers
  std::vector<Claim> claims;
  alignas(64) std::atomic<int> num_done{0};  // parts of the stage
  alignas(64) std::atomic<int> arrived{0};   // at the barrier
  // Of the run, plain: the release of its first stage publishes them. Only a thread that has claimed a part may read
  // them, since the run cannot end, nor the next one begin, until that part is done.
  const Stages* stages = nullptr;
  uint64_t first = 0;
  std::vector<std::thread> threads;

  void barrier() {
    if (size == 1) return;
    const uint64_t phase = met.value();
    // Releases what this thread wrote to the last one, which acquires what all wrote and hands it on by `met`.
    if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      // Relaxed: the others count again only after they have acquired `met`.
      arrived.store(0, std::memory_order_relaxed);
      met.set(phase + 1);
    } else {
      met.wait_past(phase);
    }
  }

  // Relaxed: what a part reads was acquired with `stage`, and the word's order of modifications alone makes one thread
  // the claimant. A thread that fell asleep with an old number finds every part begun in that stage or a later one.
  bool claim(int part, uint64_t number) {
    std::atomic<uint64_t>& newest = claims[part].stage;
    uint64_t begun = newest.load(std::memory_order_relaxed);
    return begun < number && newest.compare_exchange_strong(begun, number, std::memory_order_relaxed);
  }

  // Does what parts it can of the stage that `at` tells; whoever does the last one opens the next stage.
  void help(int tid, uint64_t at) {
    const uint64_t number = at >> kNumberShift;
    const int num_mine = (at & kOwnPartsOnly) != 0 ? 1 : size;
    int done = 0;
    for (int i = 0; i < num_mine; i++) {
      const int part = (tid + i) % size;
      if (!claim(part, number)) continue;
      stages->part(static_cast<int>(number - first), part);
      done++;
    }
    // Releases what this thread wrote to the last one, which acquires what all wrote and hands it on by `stage`.
    if (done == 0 || num_done.fetch_add(done, std::memory_order_acq_rel) + done < size) return;
    // Relaxed: the others count again only after they have acquired the next stage.
    num_done.store(0, std::memory_order_relaxed);
    const int index = static_cast<int>(number - first);
    if (stages->ended) stages->ended(index);
    const bool is_last = index + 1 == stages->count;
    stage.set((number + 1) << kNumberShift | (is_last ? 0 : at & (kOpen | kOwnPartsOnly)));
  }

  void run(const Stages& to_run, bool own_parts_only) {
    stages = &to_run;
    first = (stage.value() >> kNumberShift);
    uint64_t at = first << kNumberShift | kOpen | (own_parts_only ? kOwnPartsOnly : 0);
    stage.set(at);
    if (to_run.begun) to_run.begun();
    for (; (at & kOpen) != 0; at = stage.value()) {
      help(0, at);
      stage.wait_past(at);
    }
  }

  void work(int tid) {
    name_this_thread(tid);
    for (uint64_t at = stage.value(); at != kStopping; at = stage.value()) {
      if ((at & kOpen) != 0) help(tid, at);
      stage.wait_past(at);
    }
  }

  void stop() {
    stage.set(kStopping);
    for (std::thread& thread : threads) thread.join();
  }
};

ThreadPool::ThreadPool(int num_threads, const std::vector<int>& cores, bool crowded) {
  if (num_threads < 1) {
    throw Error("ERR_INTERNAL", "Expected at least one thread but received " + std::to_string(num_threads));
  }
  if (!cores.empty() && static_cast<int>(cores.size()) != num_threads) {
    throw Error("ERR_INTERNAL", "Expected " + std::to_string(num_threads) + " cores for as many threads but received " +
                                    std::to_string(cores.size()));
  }
  const SpinTimes times = crowded ? kCrowded : kWithACoreEach;
  const double ns = spin_ns();
  shared_ = std::make_unique<Shared>(num_threads, static_cast<int>(static_cast<double>(times.min_ns) / ns),
                                     static_cast<int>(static_cast<double>(times.max_ns) / ns));
  try {
    for (int tid = 1; tid < num_threads; tid++) {
      shared_->threads.emplace_back([shared = shared_.get(), tid] { shared->work(tid); });
    }
    if (!cores.empty()) pin(pthread_self(), cores[0]);
    for (size_t i = 1; i < cores.size(); i++) pin(shared_->threads[i - 1].native_handle(), cores[i]);
  } catch (const std::system_error& error) {
    shared_->stop();
    throw Error("ERR_SYSTEM", "Expected to start " + std::to_string(num_threads) + " threads: " + error.what());
  } catch (...) {
    shared_->stop();
    throw;
  }
}

std::shared_ptr<ThreadPool> ThreadPool::shared(int num_threads, const std::vector<int>& cores, bool crowded) {
  static std::mutex& mutex = *new std::mutex;
  static auto& pools = *new std::map<int, std::weak_ptr<ThreadPool>>;
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<ThreadPool> pool = pools[num_threads].lock();
  if (pool != nullptr) {
    if (!cores.empty()) pin(pthread_self(), cores[0]);
    return pool;
  }
  pool = std::make_shared<ThreadPool>(num_threads, cores, crowded);
  pool->takes_turns_ = true;
  pools[num_threads] = pool;
  return pool;
}

ThreadPool::~ThreadPool() { shared_->stop(); }

int ThreadPool::size() const { return shared_->size; }

void ThreadPool::run(const std::function<void(int)>& body) {
  if (takes_turns_) turns().enter(nullptr);
  if (shared_->size == 1) {
    body(0);
  } else {
    shared_->run({.count = 1, .part = [&](int, int tid) { body(tid); }, .ended = {}, .begun = {}}, true);
  }
  if (takes_turns_) turns().leave();
}

void ThreadPool::run_stages(const Stages& stages) {
  if (stages.count == 0) return;
  if (takes_turns_) turns().enter(stages.begun);
  if (shared_->size > 1) {
    shared_->run(stages, false);
  } else {
    if (stages.begun) stages.begun();
    for (int stage = 0; stage < stages.count; stage++) {
      stages.part(stage, 0);
      if (stages.ended) stages.ended(stage);
    }
  }
  if (takes_turns_) turns().leave();
}

void ThreadPool::barrier() { shared_->barrier(); }

std::vector<int> allowed_cores() {
  std::vector<int> cores;
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int core = 0; core < CPU_SETSIZE; core++) {
      if (CPU_ISSET(core, &set)) cores.push_back(core);
    }
    return cores;
  }
#endif
  for (unsigned core = 0; core < std::thread::hardware_concurrency(); core++) cores.push_back(static_cast<int>(core));
  return cores;
}

}  // namespace nds::cpu
