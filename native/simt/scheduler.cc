// Runs grids: one fiber per thread of a block, blocks one after the other, on the calling OS thread. Compiled without
// sanitizers, so that it hides no race of the kernels.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#include "simt/block.h"

namespace simt {

__thread uint3 thread_index, block_index;
__thread dim3 block_shape, grid_shape;
__thread Thread* self;
__thread Grid* grid;

const char* op_name(Op op) {
  static const char* const names[] = {"__syncwarp",        "__shfl_sync",       "a vote",   "__reduce_add_sync",
                                      "__reduce_min_sync", "__reduce_max_sync", "ldmatrix", "mma"};
  return names[static_cast<int>(op)];
}

std::string where(Site site) { return std::string(site.file) + ":" + std::to_string(site.line); }

std::string hex(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof(text), "0x%08x", mask);
  return text;
}

namespace {

std::string triple(uint3 v) {
  return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}

void enter(Thread& thread) {
  self = &thread;
  thread_index = thread.index;
}

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

void fail(const std::string& what) {
  grid->error = "block " + triple(block_index) + " thread " + triple(self->index) + ": " + what;
  __tsan_release(&grid->tsan_end);
  Thread& thread = *self;
  switch_to(thread.context, grid->main, nullptr, true);
  std::abort();
}

namespace {

// Everybody waits: says for what.
[[noreturn]] void fail_stuck() {
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

void run_next(bool exiting) {
  Thread& from = *self;
  Warp* warp = from.warp;
  if (warp->ready == 0) {
    grid->ready_warps &= ~(1u << warp->index);
    if (grid->ready_warps == 0) fail_stuck();
  }
  if (warp->ready == 0 || (grid->seed > 1 && rotation() < 4)) warp = &grid->warps[choose(grid->ready_warps)];
  Thread& next = warp->lanes[choose(warp->ready)];
  if (&next == &from) return;
  grid->counters.switches++;
  enter(next);
  switch_to(from.context, next.context, &next, exiting);
}

void suspend() {
  self->warp->ready &= ~(1u << self->lane);
  run_next(false);
}

}  // namespace

bool arrive(Op op, unsigned mask, void* operands, Site site) {
  Warp& warp = *self->warp;
  const unsigned bit = 1u << self->lane;
  const auto called = [&] { return std::string(op_name(op)) + " at " + where(site) + " with mask " + hex(mask); };
  if (!(mask & bit)) fail(called() + " by lane " + std::to_string(self->lane) + ", which the mask does not name");
  if (mask & ~warp.live) fail(called() + " names exited lanes " + hex(mask & ~warp.live));
  self->wait = {op, mask, operands, site};
  if (const unsigned others = warp.waiting & mask) {
    const Wait& other = warp.lanes[__builtin_ctz(others)].wait;
    const bool aligned = op == Op::ldmatrix || op == Op::mma;
    if (other.mask != mask || other.op != op || (aligned && (other.site.line != site.line)))
      fail(called() + " meets " + op_name(other.op) + " at " + where(other.site) + " with mask " + hex(other.mask));
  }
  warp.waiting |= bit;
  if (op == Op::sync_warp) __tsan_release(tsan_warp_sync(warp, 0));
  if (mask & ~warp.waiting) {
    suspend();
    if (op == Op::sync_warp) __tsan_acquire(tsan_warp_sync(warp, 1));
    return false;
  }
  if (op == Op::sync_warp) {
    __tsan_acquire(tsan_warp_sync(warp, 0));
    __tsan_release(tsan_warp_sync(warp, 1));
  }
  return true;
}

void release(unsigned mask) {
  self->warp->waiting &= ~mask;
  self->warp->ready |= mask;
  grid->ready_warps |= 1u << self->warp->index;
}

namespace {

[[noreturn]] void thread_main() {
  fiber_started();
  (*grid->work)();
  Thread& thread = *self;
  if (thread.num_copies > 0) fail("exits with " + std::to_string(thread.num_copies) + " cp.async not waited for");
  thread.warp->live &= ~(1u << thread.lane);
  thread.warp->ready &= ~(1u << thread.lane);
  grid->num_live--;
  __tsan_release(&grid->tsan_end);
  if (grid->num_live == 0) switch_to(thread.context, grid->main, nullptr, true);
  run_next(true);
  std::abort();
}

void* map(size_t bytes, void* at = nullptr) {
  void* memory = mmap(at, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED : 0), -1, 0);
  if (memory == MAP_FAILED) std::abort();
  return memory;
}

void make_grid() {
  grid = new Grid;
  grid->arrays.reserve(256);
  grid->stacks = static_cast<uint8_t*>(map(kMaxThreads * kStackBytes));
  grid->arena = static_cast<uint8_t*>(map(kArenaBytes));
  for (unsigned t = 0; t < kMaxThreads; t++) {
    Thread& thread = grid->threads[t];
    thread.stack = grid->stacks + t * kStackBytes;
    mprotect(thread.stack, 4096, PROT_NONE);
    thread.warp = &grid->warps[t / kWarpSize];
    thread.lane = t % kWarpSize;
    if (thread.lane == 0) *thread.warp = {0, 0, 0, &thread, t / kWarpSize};
  }
  const char* seed = std::getenv("SIMT_SEED");
  set_schedule(seed ? std::strtoull(seed, nullptr, 10) : 0);
}

void run_block() {
  Grid& g = *grid;
#if defined(SIMT_TSAN)
  map(kArenaBytes, g.arena);  // forgets accesses of earlier blocks
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
  g.num_at_barrier = 0;
  g.ready_warps = static_cast<uint32_t>((uint64_t{1} << g.num_warps) - 1);
  for (unsigned w = 0; w < g.num_warps; w++) g.warps[w].live = g.warps[w].ready = 0xffffffffu, g.warps[w].waiting = 0;
  for (unsigned t = 0; t < g.num_threads; t++) {
    Thread& thread = g.threads[t];
    thread.index = {t % block_shape.x, t / block_shape.x % block_shape.y, t / block_shape.x / block_shape.y};
    thread.num_copies = thread.open_group = 0;
    thread.fenced = false;
    thread.last_atomic = nullptr;
    prepare_fiber(thread, thread_main);
  }
  g.counters.threads += g.num_threads;
  g.num_blocks++;
  __tsan_release(&g.tsan_start);
  Thread& first = g.warps[choose(g.ready_warps)].lanes[choose(0xffffffffu)];
  enter(first);
  switch_to(g.main, first.context, &first, false);
  self = nullptr;
  if (g.num_live > 0) {  // failed
    __tsan_acquire(&g.tsan_end);
    g.dirty_stacks = true;
    return;
  }
  __asan_unpoison_memory_region(g.arena, g.arena_used);
  for (const SharedArray& array : g.arrays)
    for (size_t i = 0; i < kRedzone; i++)
      for (const size_t at : {array.offset - kRedzone + i, (array.offset + array.bytes + 15) / 16 * 16 + i})
        if (g.arena[at] != kPoison && g.error.empty())
          g.error = "block " + triple(block_index) + ": shared memory was written outside an array of " +
                    std::to_string(array.bytes) + " bytes";
}

}  // namespace

void set_schedule(uint64_t seed) {
  if (grid == nullptr) make_grid();
  grid->seed = seed;
  grid->random = seed * 0x9e3779b97f4a7c15u + 1;
}

Counters counters() { return grid ? grid->counters : Counters{}; }

const char* run_grid(const LaunchShape& shape, const std::function<void()>& thread) {
  if (grid == nullptr) make_grid();
  Grid& g = *grid;
  const uint64_t block_threads = uint64_t{shape.block.x} * shape.block.y * shape.block.z;
  const uint64_t num_blocks = uint64_t{shape.grid.x} * shape.grid.y * shape.grid.z;
  g.error.clear();
  if (block_threads == 0 || block_threads > kMaxThreads || block_threads % kWarpSize != 0 || num_blocks == 0 ||
      shape.grid.y > 65535 || shape.grid.z > 65535 || shape.shared_bytes > kMaxSharedBytes) {
    g.error = "Expected 1 to 1024 threads in whole warps, a grid that is not empty and at most " +
              std::to_string(kMaxSharedBytes) + " bytes of shared memory but received " +
              std::to_string(block_threads) + " threads, " + std::to_string(num_blocks) + " blocks and " +
              std::to_string(shape.shared_bytes) + " bytes";
    return g.error.c_str();
  }
  g.work = &thread;
  g.num_threads = static_cast<unsigned>(block_threads);
  g.num_warps = g.num_threads / kWarpSize;
  g.limit_bytes = shape.shared_bytes;
  block_shape = shape.block;
  grid_shape = shape.grid;
#if defined(SIMT_TSAN)
  g.main.tsan_fiber = __tsan_get_current_fiber();
#endif
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

unsigned lane_id() { return self->lane; }

void report(const char* what, Site site) { fail(std::string(what) + " at " + where(site)); }

void sync_threads(Site site) {
  Grid& g = *grid;
  if (g.num_at_barrier > 0 && (g.barrier_site.line != site.line || std::strcmp(g.barrier_site.file, site.file) != 0))
    fail("__syncthreads at " + where(site) + " meets __syncthreads at " + where(g.barrier_site));
  if (g.num_live < g.num_threads)
    fail("__syncthreads at " + where(site) + " after " + std::to_string(g.num_threads - g.num_live) +
         " threads have exited");
  g.barrier_site = site;
  self->fenced = false;
  __tsan_release(tsan_block_sync(0));
  if (++g.num_at_barrier < g.num_threads) {
    suspend();
    __tsan_acquire(tsan_block_sync(1));
    return;
  }
  __tsan_acquire(tsan_block_sync(0));
  __tsan_release(tsan_block_sync(1));
  g.num_at_barrier = 0;
  for (unsigned w = 0; w < g.num_warps; w++) g.warps[w].ready = g.warps[w].live;
  g.ready_warps = static_cast<uint32_t>((uint64_t{1} << g.num_warps) - 1);
}
}  // namespace simt
