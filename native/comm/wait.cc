// Sleeps on a word of shared memory: by futex on Linux, by short naps elsewhere.
#include "comm/wait.h"

#include <sched.h>
#include <time.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#endif

namespace nds::comm {

#ifdef __linux__

// Not FUTEX_PRIVATE: the processes share the word through the file behind it, at different addresses.
void sleep_while(const std::atomic<uint32_t>& word, uint32_t value, int64_t milliseconds) {
  const timespec timeout{static_cast<time_t>(milliseconds / 1000), static_cast<long>(milliseconds % 1000 * 1000000)};
  syscall(SYS_futex, &word, FUTEX_WAIT, value, &timeout, nullptr, 0);
}

void wake_sleepers(const std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

#else

void sleep_while(const std::atomic<uint32_t>& word, uint32_t value, int64_t milliseconds) {
  if (milliseconds <= 0 || word.load(std::memory_order_acquire) != value) return;
  const timespec nap{0, 50000};
  nanosleep(&nap, nullptr);
}

void wake_sleepers(const std::atomic<uint32_t>&) {}

#endif

void relax_processor() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void yield_processor() { sched_yield(); }

}  // namespace nds::comm
