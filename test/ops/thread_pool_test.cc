// Stages of a thread pool under the thread sanitizer: parts hand on plain memory, which only the pool orders.
#include "cpu/thread_pool.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace {

constexpr int kNumThreads = 4, kStagesOfRun = 50, kMinRuns = 40, kMaxRuns = 100'000;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::printf("Expected %s\n", what);
  std::exit(1);
}

}  // namespace

int main() {
  nds::cpu::ThreadPool pool(kNumThreads, {}, true);
  std::array<std::thread::id, kNumThreads> owners;
  std::array<int64_t, kNumThreads> values{}, next{};
  std::atomic<bool> was_taken{false};
  pool.run([&](int tid) { owners[tid] = std::this_thread::get_id(); });

  // More threads than cores, and runs until a part was done by a thread that it does not belong to.
  for (int run = 0; run < kMinRuns || !was_taken; run++) {
    expect(run < kMaxRuns, "some thread to take another's part");
    values.fill(1);
    int num_ended = 0;
    const auto part = [&](int stage, int part) {
      expect(stage == num_ended, "a stage to begin after the one before it has ended");
      if (std::this_thread::get_id() != owners[part]) was_taken = true;
      const auto& from = stage % 2 == 0 ? values : next;
      int64_t sum = part;
      for (const int64_t value : from) sum += value;
      // += so that a part done twice shows, too.
      (stage % 2 == 0 ? next : values)[part] += sum % 1'000'003;
    };
    const auto ended = [&](int stage) {
      num_ended = stage + 1;
      (stage % 2 == 0 ? values : next).fill(0);
    };
    pool.run_stages({.count = kStagesOfRun, .part = part, .ended = ended, .begun = {}});
    expect(num_ended == kStagesOfRun, "all stages to end");

    std::array<int64_t, kNumThreads> expected;
    expected.fill(1);
    for (int stage = 0; stage < kStagesOfRun; stage++) {
      int64_t sum = 0;
      for (const int64_t value : expected) sum += value;
      for (int i = 0; i < kNumThreads; i++) expected[i] = (sum + i) % 1'000'003;
    }
    expect(values == expected, "each part of each stage to be done once, and to see the stage before it");

    // Between runs of stages, each thread does its own, and all meet inside.
    next.fill(0);
    pool.run([&](int tid) {
      expect(std::this_thread::get_id() == owners[tid], "run to keep a body on its thread");
      next[tid] = tid + 1;
      pool.barrier();
      values[tid] = next[(tid + 1) % kNumThreads];
    });
    for (int i = 0; i < kNumThreads; i++) expect(values[i] == (i + 1) % kNumThreads + 1, "a barrier to hand on memory");
    next.fill(0);
  }

  // While the calling thread is in `begun`, the others do all parts.
  std::atomic<int> num_ended{0};
  pool.run_stages({.count = kStagesOfRun,
                   .part = [](int, int) {},
                   .ended = [&](int) { num_ended++; },
                   .begun =
                       [&] {
                         while (num_ended < kStagesOfRun) std::this_thread::yield();
                       }});
  // And before it waits for its turn in a shared pool: the run whose turn it is ends only after that.
  const auto shared = nds::cpu::ThreadPool::shared(2, {}, true);
  std::atomic<bool> runs{false}, waits{false};
  std::thread other([&] {
    while (!runs) std::this_thread::yield();
    shared->run_stages({.count = 1, .part = [](int, int) {}, .ended = {}, .begun = [&] { waits = true; }});
  });
  const auto until_waits = [&](int, int) {
    runs = true;
    while (!waits) std::this_thread::yield();
  };
  shared->run_stages({.count = 1, .part = until_waits, .ended = {}, .begun = {}});
  other.join();
  // A single thread calls it first.
  nds::cpu::ThreadPool single(1);
  bool has_begun = false, is_first = false;
  single.run_stages(
      {.count = 1, .part = [&](int, int) { is_first = has_begun; }, .ended = {}, .begun = [&] { has_begun = true; }});
  expect(is_first, "a single thread to call `begun` before its first part");
  std::puts("ok");
}
