// The threads of a rank: they run one function together and meet at a barrier that spins, then sleeps.
#include "cpu/thread_pool.h"

#include <algorithm>
#include <atomic>
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
  uint32_t value() const { return value_.load(std::memory_order_acquire); }

  // Waits until the value is no longer `old`.
  void wait_past(uint32_t old) {
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
  void set(uint32_t value) {
    value_.store(value);
    if (sleepers_.load() > 0) wake(value);
  }

 private:
#if defined(__linux__)
  static_assert(sizeof(std::atomic<uint32_t>) == 4, "a futex is a plain 32-bit word");
  void sleep_while(uint32_t old) {
    while (value_.load() == old) syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0);
  }
  void wake(uint32_t) { syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0); }
#else
  void sleep_while(uint32_t old) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return value_.load() != old; });
  }
  void wake(uint32_t) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
    }
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
#endif

  alignas(64) std::atomic<uint32_t> value_{0};
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
  void enter() {
    std::unique_lock<std::mutex> lock(mutex_);
    const uint64_t mine = next_++;
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
      : size(num_threads), started(min_spins, max_spins), finished(min_spins, max_spins) {}

  const int size;
  Signal started;   // counts runs
  Signal finished;  // counts barriers
  alignas(64) std::atomic<int> arrived{0};
  // Plain: `started` releases them to the workers, and the barrier at the end of a run gives them back.
  const std::function<void(int)>* body = nullptr;
  bool stopping = false;
  std::vector<std::thread> threads;

  void barrier() {
    if (size == 1) return;
    const uint32_t phase = finished.value();
    // Releases what this thread wrote to the last one, which acquires what all wrote and hands it on by `finished`.
    if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      // Relaxed: the others count again only after they have acquired `finished`.
      arrived.store(0, std::memory_order_relaxed);
      finished.set(phase + 1);
    } else {
      finished.wait_past(phase);
    }
  }

  void work(int tid) {
    name_this_thread(tid);
    for (uint32_t runs = 0;; runs++) {
      started.wait_past(runs);
      if (stopping) return;
      (*body)(tid);
      barrier();
    }
  }

  void stop() {
    stopping = true;
    started.set(started.value() + 1);
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
  if (takes_turns_) turns().enter();
  shared_->body = &body;
  if (shared_->size > 1) shared_->started.set(shared_->started.value() + 1);
  body(0);
  shared_->barrier();
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
