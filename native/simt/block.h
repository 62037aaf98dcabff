// State of the running block, shared by the scheduler and the collectives.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "simt/device_memory.h"
#include "simt/launch.h"
#include "simt/sanitizer.h"

#if !defined(__x86_64__) && !defined(SIMT_UCONTEXT)
#define SIMT_UCONTEXT  // the hand-written switch is for x86-64
#endif
#if defined(SIMT_UCONTEXT)
#include <ucontext.h>
#endif

namespace simt {

constexpr unsigned kWarpSize = 32, kMaxThreads = 1024;
constexpr unsigned kTsanBlocks = 4;  // ThreadSanitizer's fibers are costly: every fourth block uses the same ones
constexpr size_t kArenaBytes = 2 * kMaxSharedBytes, kRedzone = 64;
#if defined(SIMT_ASAN)
constexpr size_t kStackBytes = 256 * 1024;
#else
constexpr size_t kStackBytes = 64 * 1024;
#endif
struct Context {
#if defined(SIMT_UCONTEXT)
  ucontext_t state;
#else
  void* stack_pointer = nullptr;
#endif
  void* fake_stack = nullptr;
  void* tsan_fiber = nullptr;
};

// A cp.async in flight.
struct Copy {
  void* to;
  const void* from;
  bool valid;
  unsigned group;
};
constexpr unsigned kMaxCopies = 128;  // of one thread

struct Wait {
  Op op;
  unsigned mask;
  void* operands;
  Site site;
};

struct Warp;
struct Thread {
  Context context;
  Warp* warp;
  unsigned lane;
  uint3 index;
  uint8_t* stack;
  Wait wait;
  Copy* copies;  // [kMaxCopies], oldest first
  unsigned num_copies, open_group;
  bool has_waited;          // for the launch before
  bool fenced;              // since the last barrier
  const void* last_atomic;  // address
};

struct Warp {
  uint32_t live, ready, waiting;  // by lane: not exited; can run; inside a warp collective
  uint32_t started;               // has run
  Thread* lanes;
  unsigned index;
};

// State of 16 bytes of shared memory: in no array; in an array; the target of a cp.async in flight.
enum class Chunk : uint8_t { outside, array, arriving };

struct SharedArray {
  const void* key;
  size_t offset, bytes;
};

// What a thread throws to end the launch.
struct LaunchFailed {
  std::string what;
};

// Launch state of an OS thread. It lives as long as the thread, so that stacks are reused.
struct Grid {
  Thread threads[kMaxThreads];
  Copy copies[kMaxThreads][kMaxCopies];
  Warp warps[kMaxThreads / kWarpSize];
  Context main;
  const void* main_stack = nullptr;
  size_t main_stack_bytes = 0;
  unsigned num_threads = 0, num_warps = 0, num_live = 0, num_at_barrier = 0;
  unsigned num_votes = 0, barrier_votes = 0;  // of the barrier being reached; of the last completed one
  uint32_t ready_warps = 0;
  Site barrier_site{};
  uint8_t* stacks = nullptr;
  uint8_t* arena = nullptr;
  size_t arena_used = kArenaBytes, shared_bytes = 0, limit_bytes = 0;
  std::vector<SharedArray> arrays;
  Chunk chunks[kArenaBytes / 16] = {};  // of the arena
  const std::function<void()>* work = nullptr;
  std::string error;
  bool dirty_stacks = false;
  bool overlaps = false;        // the launch before
  Thread* too_early = nullptr;  // the thread that runs without access to device memory, until it waits
  uint64_t seed = 0, random = 0;
  Counters counters;
  void* signal_stack = nullptr;
  void* tsan_fibers[kTsanBlocks][kMaxThreads] = {};
  uint64_t num_blocks = 0;  // run so far
  char tsan_start, tsan_end, tsan_syncs[1 << 20];
};

extern __thread Thread* self;  // the running fiber
extern __thread Grid* grid;    // of this OS thread

// ThreadSanitizer's sync address of a barrier: kind 0 to arrive, 1 to leave. Blocks have different ones, or it would
// take the blocks as ordered.
inline void* tsan_block_sync(unsigned kind) { return &grid->tsan_syncs[(grid->num_blocks * 66 + kind) % (1 << 20)]; }
inline void* tsan_warp_sync(const Warp& warp, unsigned kind) { return tsan_block_sync(2 + warp.index * 2 + kind); }

// fiber.cc
void* map(size_t bytes, void* at = nullptr);
void prepare_fiber(Thread& thread, void (*start)());
void switch_to(Context& from, Context& to, Thread* next, bool exiting);
void fiber_started();
void catch_faults();    // from now on, a fault in a fiber of this OS thread ends its launch
void release_faults();  // before the OS thread ends

// scheduler.cc
std::string where(Site site);
std::string hex(unsigned mask);
[[noreturn]] void fail(const std::string& what);        // ends the launch
[[noreturn]] void end_launch(const std::string& what);  // fail() without unwinding the thread's stack
void suspend();                                         // until another thread makes this one ready
// collectives.cc
// Arrives at a warp collective. True for the lane that completes it, which must call release().
bool arrive(Op op, unsigned mask, void* operands, Site site);
void release(unsigned mask);
const char* op_name(Op op);
// State of the 16 bytes at address. Fails if the address is misaligned or in no shared array.
Chunk& chunk_at(const void* address, const char* what, Site site);

template <typename T>
T& operands_of(unsigned lane) {
  return *static_cast<T*>(self->warp->lanes[lane].wait.operands);
}

}  // namespace simt
