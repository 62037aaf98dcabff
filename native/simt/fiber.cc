// Fibers: stacks, a hand-written context switch (or ucontext, about ten times slower) that the sanitizers know about,
// and faults of a fiber, which end its launch instead of the process.
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdlib>
#include <mutex>

#include "simt/block.h"

#if !defined(SIMT_UCONTEXT)
// Pushes the callee-saved registers, stores the stack pointer in *save, and resumes the context whose stack pointer is
// `load`.
extern "C" void simt_switch_stack(void** save, void* load);
asm(R"(
.text
.type simt_switch_stack, @function
simt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
#endif

namespace simt {

void* map(size_t bytes, void* at) {
  void* memory = mmap(at, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED : 0), -1, 0);
  if (memory == MAP_FAILED) std::abort();
  return memory;
}

void switch_to(Context& from, Context& to, [[maybe_unused]] Thread* next, [[maybe_unused]] bool exiting) {
#if defined(SIMT_ASAN)
  __sanitizer_start_switch_fiber(exiting ? nullptr : &from.fake_stack, next ? next->stack : grid->main_stack,
                                 next ? kStackBytes : grid->main_stack_bytes);
#endif
#if defined(SIMT_TSAN)
  __tsan_switch_to_fiber(to.tsan_fiber, 1);
#endif
#if defined(SIMT_UCONTEXT)
  swapcontext(&from.state, &to.state);
#else
  simt_switch_stack(&from.stack_pointer, to.stack_pointer);
#endif
#if defined(SIMT_ASAN)
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

// Called first in each fiber.
void fiber_started() {
  __tsan_acquire(&grid->tsan_start);
#if defined(SIMT_ASAN)
  const void* stack;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
  if (grid->main_stack == nullptr) grid->main_stack = stack, grid->main_stack_bytes = bytes;
#endif
}

void prepare_fiber(Thread& thread, void (*start)()) {
  // Spreads the tops of stacks over the cache sets.
  uint8_t* top = thread.stack + kStackBytes - (thread.lane * 3 + thread.warp->index) % 61 * 64;
  thread.context.fake_stack = nullptr;
#if defined(SIMT_UCONTEXT)
  getcontext(&thread.context.state);
  thread.context.state.uc_stack.ss_sp = thread.stack;
  thread.context.state.uc_stack.ss_size = static_cast<size_t>(top - thread.stack);
  thread.context.state.uc_link = nullptr;
  makecontext(&thread.context.state, start, 0);
#else
  void** frame = reinterpret_cast<void**>(top) - 2;  // stack as on entry to a function: 8 bytes off a 16-byte boundary
  frame[0] = reinterpret_cast<void*>(start);
  frame[1] = nullptr;
  thread.context.stack_pointer = frame - 6;
#endif
}

#if defined(__x86_64__) && !defined(SIMT_ASAN) && !defined(SIMT_TSAN)

namespace {

constexpr size_t kSignalStackBytes = 64 * 1024;
constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE};
struct sigaction previous[3];
__thread const void* fault_address;
__thread int fault_signal;

[[noreturn]] void end_after_fault() {
  const auto* at = static_cast<const uint8_t*>(fault_address);
  if (fault_signal == SIGFPE) end_launch("divides an integer by zero");
  if (at >= self->stack && at < self->stack + 4096) end_launch("needs more stack than the emulation gives a thread");
  char text[32];
  std::snprintf(text, sizeof(text), "%p", fault_address);
  const char* const reason = grid->too_early != nullptr ? "; before wait_for_previous()" : "";
  end_launch("touches address " + std::string(text) + ", " + device_memory().describe(fault_address) + reason +
             "; or a vector that is not aligned");
}

void on_fault(int signal, siginfo_t* info, void* context) {
  if (self != nullptr) {
    // Continues in end_after_fault at the top of the thread's stack, whose frames are dead.
    fault_address = info->si_addr;
    fault_signal = signal;
    auto* const registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    registers[REG_RIP] = reinterpret_cast<greg_t>(&end_after_fault);
    registers[REG_RSP] = reinterpret_cast<greg_t>(self->stack + kStackBytes - 8);
    return;
  }
  for (size_t i = 0; i < 3; i++) {
    if (kSignals[i] != signal) continue;
    if (previous[i].sa_flags & SA_SIGINFO) return previous[i].sa_sigaction(signal, info, context);
    if (previous[i].sa_handler != SIG_DFL && previous[i].sa_handler != SIG_IGN) return previous[i].sa_handler(signal);
    sigaction(signal, &previous[i], nullptr);  // the fault repeats and ends the process
  }
}

}  // namespace

void catch_faults() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (size_t i = 0; i < 3; i++) sigaction(kSignals[i], &action, &previous[i]);
  });
  stack_t old = {};
  if (sigaltstack(nullptr, &old) != 0 || (old.ss_flags & SS_DISABLE) == 0) return;
  stack_t stack = {};
  stack.ss_sp = grid->signal_stack = map(kSignalStackBytes);
  stack.ss_size = kSignalStackBytes;
  sigaltstack(&stack, nullptr);
}

void release_faults() {
  if (grid->signal_stack == nullptr) return;
  stack_t none = {};
  none.ss_flags = SS_DISABLE;
  sigaltstack(&none, nullptr);
  munmap(grid->signal_stack, kSignalStackBytes);
}

#else

void catch_faults() {}  // the sanitizers report them, with the line
void release_faults() {}

#endif

}  // namespace simt
