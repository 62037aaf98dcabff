// Fibers: a hand-written context switch (or ucontext, about ten times slower) that the sanitizers know about.
#include <cstdint>

#include "simt/block.h"

#if !defined(SIMT_UCONTEXT)
// Saves the callee-saved registers and the stack pointer in *save and continues where `load` was saved.
extern "C" void simt_switch_stack(void** save, void* load);
#if defined(__x86_64__)
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
#else
#error "Write simt_switch_stack for this processor, or define SIMT_UCONTEXT"
#endif
#endif

namespace simt {

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

// First thing in a fiber.
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
  // Stacks end at different cache sets.
  uint8_t* top = thread.stack + kStackBytes - (thread.lane * 3 + thread.warp->index) % 61 * 64;
  thread.context.fake_stack = nullptr;
#if defined(SIMT_UCONTEXT)
  getcontext(&thread.context.state);
  thread.context.state.uc_stack.ss_sp = thread.stack;
  thread.context.state.uc_stack.ss_size = static_cast<size_t>(top - thread.stack);
  thread.context.state.uc_link = nullptr;
  makecontext(&thread.context.state, start, 0);
#else
  void** frame = reinterpret_cast<void**>(top) - 2;  // as after a call of start: stack 16-byte aligned plus 8
  frame[0] = reinterpret_cast<void*>(start);
  frame[1] = nullptr;
  thread.context.stack_pointer = frame - 6;
#endif
}

}  // namespace simt
