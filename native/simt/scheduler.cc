// Runs grids on the calling OS thread: one fiber per thread of a block, blocks one after the other. Compiled without
// sanitizers, so that its own accesses hide no race of the kernels.
#include <sched.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#include "simt/block.h"

namespace simt {

__thread uint3 thread_index, block_index;
__thread dim3 block_shape, grid_shape;
__thread Thread* self;
__thread Grid* grid;

std::string where(Site site) { return std::string(site.file) + ":" + std::to_string(site.line); }

std::string hex(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof(text), "0x%08x", mask);
  return text;
}

namespace {

std::string triple(uint3 v) {
  return std::string("(") + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}

void set_error(const std::string& what) {
  if (grid->error.empty())
    grid->error = "block " + triple(block_index) + " thread " + triple(self->index) + ": " + what;
}

void leave(bool exiting) { switch_to(self->context, grid->main, nullptr, exiting); }

unsigned rotation() {
  grid->random ^= grid->random << 13;
  grid->random ^= grid->random >> 7;
  grid->random ^= grid->random << 17;
  return static_cast<unsigned>(grid->random >> 32) & 31;
}

// One set bit: the lowest, the highest, or a random one, as the schedule says.
unsigned choose(uint32_t bits) {
  if (grid->seed == 0) return static_cast<unsigned>(__builtin_ctz(bits));
  if (grid->seed == 1) return 31u - static_cast<unsigned>(__builtin_clz(bits));
  const unsigned by = rotation();
  return (static_cast<unsigned>(__builtin_ctz(by ? bits >> by | bits << (32 - by) : bits)) + by) & 31;
}

}  // namespace

void fail(const std::string& what) { throw LaunchFailed{what}; }

void end_launch(const std::string& what) {
  set_error(what);
  leave(true);
  std::abort();
}

namespace {

// Deadlock: all threads wait or have exited. The error names what they wait for.
[[noreturn, gnu::cold]] void fail_stuck() {
  std::string what = "deadlock:";
  if (grid->num_at_barrier > 0)
    what += " " + std::to_string(grid->num_at_barrier) + " of " + std::to_string(grid->num_threads) +
            " threads wait in __syncthreads at " + where(grid->barrier_site) + ";";
  if (grid->num_live < grid->num_threads)
    what += " " + std::to_string(grid->num_threads - grid->num_live) + " threads have exited;";
  for (unsigned w = 0; w < grid->num_warps; w++) {
    Warp& warp = grid->warps[w];
    if (warp.waiting == 0) continue;
    const Wait& wait = warp.lanes[__builtin_ctz(warp.waiting)].wait;
    what += " lanes " + hex(warp.waiting) + " of warp " + std::to_string(w) + " wait in " + op_name(wait.op) + " at " +
            where(wait.site) + " with mask " + hex(wait.mask) + ";";
  }
  fail(what);
}

// The thread to run after `self`.
Thread& pick_next() {
  Warp* warp = self->warp;
  if (warp->ready == 0) {
    grid->ready_warps &= ~(1u << warp->index);
    if (grid->ready_warps == 0) fail_stuck();
  }
  if (warp->ready == 0 || (grid->seed > 1 && rotation() < 4)) warp = &grid->warps[choose(grid->ready_warps)];
  return warp->lanes[choose(warp->ready)];
}

void fiber_main();

bool has_started(const Thread& thread) { return thread.warp->started >> thread.lane & 1; }

void enter(Thread& thread) {
  self = &thread;
  thread_index = thread.index;
}

void begin(Thread& thread) {
  thread.warp->started |= 1u << thread.lane;
  thread.num_copies = thread.open_group = 0;
  thread.has_waited = false;
  thread.fenced = false;
  thread.last_atomic = nullptr;
}

void allow_access() {
  if (grid->too_early == nullptr) return;
  grid->too_early = nullptr;
  device_memory().set_access(true);
}

void switch_thread(Thread& next, bool exiting) {
  Thread& from = *self;
  if (&next == &from) return;
  allow_access();
  if (!has_started(next)) {
    begin(next);
    prepare_fiber(next, fiber_main);
  }
  grid->counters.switches++;
  enter(next);
  switch_to(from.context, next.context, &next, exiting);
}

void end_thread() {
  Thread& thread = *self;
  if (grid->overlaps && !thread.has_waited)
    fail("exits without wait_for_previous() in a launch that may overlap the one before it");
  if (thread.num_copies > 0) fail("exits with " + std::to_string(thread.num_copies) + " cp.async not waited for");
  thread.warp->live &= ~(1u << thread.lane);
  thread.warp->ready &= ~(1u << thread.lane);
  grid->num_live--;
  __tsan_release(&grid->tsan_end);
}

// Runs a thread, then further threads on the same stack for as long as the next one has not started.
void fiber_main() {
  fiber_started();
  try {
    for (;;) {
      (*grid->work)();
      end_thread();
      if (grid->num_live == 0) break;
      Thread& next = pick_next();
#if !defined(SIMT_TSAN)  // it tells threads apart by their fibers
      if (!has_started(next)) {
        std::swap(next.stack, self->stack);
        begin(next);
        enter(next);
        continue;
      }
#endif
      switch_thread(next, true);
    }
  } catch (const LaunchFailed& failed) {
    set_error(failed.what);
  }
  leave(true);
  std::abort();
}

}  // namespace

void wait_for_previous() {
  self->has_waited = true;
  allow_access();
}

void set_early_access(bool allowed) {
  if (grid->too_early != nullptr) device_memory().set_access(allowed);
}

void suspend() {
  self->warp->ready &= ~(1u << self->lane);
  switch_thread(pick_next(), false);
}

void yield() {
  const unsigned lane = self->lane, own = self->warp->index;
  const uint32_t above = self->warp->ready & ~((2u << lane) - 1);
  if (above != 0) return switch_thread(self->warp->lanes[__builtin_ctz(above)], false);
  for (unsigned i = 1; i <= grid->num_warps; i++) {
    Warp& warp = grid->warps[(own + i) % grid->num_warps];
    if (warp.index <= own) sched_yield();  // wrapped around: lets other processes run
    if (warp.ready != 0) return switch_thread(warp.lanes[__builtin_ctz(warp.ready)], false);
  }
}

namespace {

// Frees the grid at the end of its OS thread.
struct GridOwner {
  ~GridOwner() {
    if (grid == nullptr) return;
    release_faults();
#if defined(SIMT_TSAN)
    for (auto& fibers : grid->tsan_fibers)
      for (void* fiber : fibers)
        if (fiber != nullptr) __tsan_destroy_fiber(fiber);
#endif
    __asan_unpoison_memory_region(grid->stacks, kMaxThreads * kStackBytes);
    __asan_unpoison_memory_region(grid->arena, kArenaBytes);
    munmap(grid->stacks, kMaxThreads * kStackBytes);
    munmap(grid->arena, kArenaBytes);
    delete grid;
    grid = nullptr;
  }
};

void make_grid() {
  static thread_local GridOwner owner;
  static_cast<void>(&owner);
  grid = new Grid;
  grid->arrays.reserve(256);
  grid->stacks = static_cast<uint8_t*>(map(kMaxThreads * kStackBytes));
  grid->arena = static_cast<uint8_t*>(map(kArenaBytes));
  for (unsigned t = 0; t < kMaxThreads; t++) {
    Thread& thread = grid->threads[t];
    thread.stack = grid->stacks + t * kStackBytes;
    thread.copies = grid->copies[t];
    mprotect(thread.stack, 4096, PROT_NONE);
    thread.warp = &grid->warps[t / kWarpSize];
    thread.lane = t % kWarpSize;
    if (thread.lane == 0) *thread.warp = {0, 0, 0, 0, &thread, t / kWarpSize};
  }
  catch_faults();
  const char* seed = std::getenv("SIMT_SEED");
  set_schedule(seed ? std::strtoull(seed, nullptr, 10) : 0);
}

// After a failed launch: for ThreadSanitizer, orders all that its threads did before later work.
void abandon_threads() {
  Grid& g = *grid;
  g.dirty_stacks = true;
#if defined(SIMT_TSAN)
  for (unsigned t = 0; t < g.num_threads; t++) {
    __tsan_switch_to_fiber(g.threads[t].context.tsan_fiber, 1);
    __tsan_release(&g.tsan_end);
  }
  __tsan_switch_to_fiber(g.main.tsan_fiber, 1);
  for (auto& fibers : g.tsan_fibers)
    for (void*& fiber : fibers) {
      if (fiber != nullptr) __tsan_destroy_fiber(fiber);
      fiber = nullptr;
    }
#endif
}

void check_redzones() {
  Grid& g = *grid;
  __asan_unpoison_memory_region(g.arena, g.arena_used);
  for (const SharedArray& array : g.arrays)
    for (size_t i = 0; i < kRedzone; i++)
      for (const size_t at : {array.offset - kRedzone + i, (array.offset + array.bytes + 15) / 16 * 16 + i})
        if (g.arena[at] != kPoison && g.error.empty())
          g.error = "block " + triple(block_index) + ": shared memory was written outside an array of " +
                    std::to_string(array.bytes) + " bytes";
}

void reset_block() {
  Grid& g = *grid;
#if defined(SIMT_TSAN)
  map(kArenaBytes, g.arena);  // a fresh mapping has no accesses of earlier blocks
  map(g.num_threads * kStackBytes, g.stacks);
  g.arena_used = kArenaBytes;
  for (unsigned t = 0; t < g.num_threads; t++) {
    void*& fiber = g.tsan_fibers[g.num_blocks % kTsanBlocks][t];
    if (fiber == nullptr) fiber = __tsan_create_fiber(0);
    g.threads[t].context.tsan_fiber = fiber;
  }
#endif
  __asan_unpoison_memory_region(g.arena, g.arena_used);
  std::memset(g.arena, kPoison, g.arena_used);
  for (size_t i = 0; i < g.arena_used / 16; i++) g.chunks[i] = Chunk::outside;
  __asan_poison_memory_region(g.arena, kArenaBytes);
  if (g.dirty_stacks) __asan_unpoison_memory_region(g.stacks, kMaxThreads * kStackBytes);
  g.dirty_stacks = false;
  g.arrays.clear();
  g.arena_used = kRedzone;
  g.shared_bytes = 0;
  g.num_live = g.num_threads;
  g.num_at_barrier = g.num_votes = 0;
  g.ready_warps = static_cast<uint32_t>((uint64_t{1} << g.num_warps) - 1);
  for (unsigned w = 0; w < g.num_warps; w++) {
    g.warps[w].live = g.warps[w].ready = 0xffffffffu;
    g.warps[w].waiting = g.warps[w].started = 0;
  }
}

void run_block() {
  Grid& g = *grid;
  reset_block();
  g.counters.threads += g.num_threads;
  g.num_blocks++;
  __tsan_release(&g.tsan_start);
  Thread& first = g.warps[choose(g.ready_warps)].lanes[choose(0xffffffffu)];
  begin(first);
  prepare_fiber(first, fiber_main);
  enter(first);
  if (g.overlaps) {  // one thread of each block stands for all
    g.too_early = &first;
    device_memory().set_access(false);
  }
  switch_to(g.main, first.context, &first, false);
  self = nullptr;
  allow_access();
  if (g.num_live > 0 || !g.error.empty()) return abandon_threads();
  check_redzones();
}

}  // namespace

void set_schedule(uint64_t seed) {
  if (grid == nullptr) make_grid();
  grid->seed = seed;
  grid->random = seed * 0x9e3779b97f4a7c15u + 1;
}

Counters counters() { return grid ? grid->counters : Counters{}; }

std::string shape_error(const LaunchShape& shape) {
  const uint64_t threads = uint64_t{shape.block.x} * shape.block.y * shape.block.z;
  const uint64_t blocks = uint64_t{shape.grid.x} * shape.grid.y * shape.grid.z;
  if (threads > 0 && threads <= kMaxThreads && threads % kWarpSize == 0 && blocks > 0 && shape.grid.x < 0x80000000u &&
      shape.grid.y < 65536 && shape.grid.z < 65536 && shape.shared_bytes <= kMaxSharedBytes)
    return "";
  return "Expected 1 to 1024 threads in whole warps, a grid that is not empty and at most " +
         std::to_string(kMaxSharedBytes) + " bytes of shared memory but received " + std::to_string(threads) +
         " threads, " + std::to_string(blocks) + " blocks and " + std::to_string(shape.shared_bytes) + " bytes";
}

const char* run_grid(const LaunchShape& shape, const std::function<void()>& thread) {
  if (grid == nullptr) make_grid();
  Grid& g = *grid;
  g.error = shape_error(shape);
  if (!g.error.empty()) return g.error.c_str();
  g.work = &thread;
  g.num_threads = shape.block.x * shape.block.y * shape.block.z;
  g.num_warps = g.num_threads / kWarpSize;
  g.limit_bytes = shape.shared_bytes;
  g.overlaps = shape.place.overlap_previous;
  block_shape = shape.block;
  grid_shape = shape.grid;
  for (unsigned t = 0; t < g.num_threads; t++)
    g.threads[t].index = {t % block_shape.x, t / block_shape.x % block_shape.y, t / block_shape.x / block_shape.y};
#if defined(SIMT_TSAN)
  g.main.tsan_fiber = __tsan_get_current_fiber();
#endif
  const uint64_t num_blocks = uint64_t{shape.grid.x} * shape.grid.y * shape.grid.z;
  const uint64_t shift = g.seed > 1 ? (g.seed * 2654435761u) % num_blocks : 0;
  for (uint64_t i = 0; i < num_blocks && g.error.empty(); i++) {
    const uint64_t b = g.seed == 1 ? num_blocks - 1 - i : (i + shift) % num_blocks;
    block_index = {static_cast<unsigned>(b % shape.grid.x), static_cast<unsigned>(b / shape.grid.x % shape.grid.y),
                   static_cast<unsigned>(b / shape.grid.x / shape.grid.y)};
    run_block();
  }
  __tsan_acquire(&g.tsan_end);
  return g.error.empty() ? nullptr : g.error.c_str();
}

}  // namespace simt
