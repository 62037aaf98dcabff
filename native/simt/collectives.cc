// Barriers, warp collectives, shared memory, cp.async, and memory order.
#include <ctime>

#include "simt/block.h"

namespace simt {

const char* op_name(Op op) {
  static const char* const names[] = {"__syncwarp",        "__shfl_sync",       "a vote",
                                      "__match_any_sync",  "__reduce_add_sync", "__reduce_min_sync",
                                      "__reduce_max_sync", "ldmatrix",          "mma"};
  return names[static_cast<int>(op)];
}

uint64_t nanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

void check_alignment(const void* address, size_t bytes, const char* what, Site site) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0)
    fail(std::string(what) + " at " + where(site) + " is not " + std::to_string(bytes) + "-byte aligned");
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
  g.barrier_votes = g.num_votes;
  g.num_votes = 0;
  for (unsigned w = 0; w < g.num_warps; w++) g.warps[w].ready = g.warps[w].live;
  g.ready_warps = static_cast<uint32_t>((uint64_t{1} << g.num_warps) - 1);
}

int sync_threads_vote(Vote vote, bool predicate, Site site) {
  grid->num_votes += predicate;
  sync_threads(site);
  const unsigned votes = grid->barrier_votes;
  return vote == Vote::count ? static_cast<int>(votes) : vote == Vote::any ? votes > 0 : votes == grid->num_threads;
}

namespace {

std::string called(Op op, unsigned mask, Site site) {
  return std::string(op_name(op)) + " at " + where(site) + " with mask " + hex(mask);
}

[[noreturn, gnu::cold]] void fail_mask(Op op, unsigned mask, Site site) {
  if (!(mask >> self->lane & 1))
    fail(called(op, mask, site) + " by lane " + std::to_string(self->lane) + ", which the mask does not name");
  fail(called(op, mask, site) + " names exited lanes " + hex(mask & ~self->warp->live));
}

[[noreturn, gnu::cold]] void fail_meeting(Op op, unsigned mask, Site site, const Wait& other) {
  fail(called(op, mask, site) + " meets " + called(other.op, other.mask, other.site));
}

}  // namespace

bool arrive(Op op, unsigned mask, void* operands, Site site) {
  Thread& thread = *self;
  Warp& warp = *thread.warp;
  const unsigned bit = 1u << thread.lane;
  if (!(mask & bit) || (mask & ~warp.live)) fail_mask(op, mask, site);
  thread.wait = {op, mask, operands, site};
  if (const unsigned others = warp.waiting & mask) {
    const Wait& other = warp.lanes[__builtin_ctz(others)].wait;
    const bool aligned = op == Op::ldmatrix || op == Op::mma;
    if (other.mask != mask || other.op != op || (aligned && other.site.line != site.line))
      fail_meeting(op, mask, site, other);
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

void sync_warp(unsigned mask, Site site) {
  if (arrive(Op::sync_warp, mask, nullptr, site)) release(mask);
}

// For ThreadSanitizer, a fence makes the thread's later atomics releases, up to the next barrier: what the barrier
// publishes of other threads needs a fence after it. A fence also acquires what was released at the thread's last
// atomic.
void fence() {
  self->fenced = true;
  if (self->last_atomic != nullptr) __tsan_acquire(const_cast<void*>(self->last_atomic));
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void note_atomic(const void* address) {
  if (self->fenced) __tsan_release(const_cast<void*>(address));
  self->last_atomic = address;
}

uint64_t shuffle(unsigned mask, uint64_t value, unsigned source, Site site) {
  struct Operands {
    uint64_t value, result;
    unsigned source;
  } mine{value, 0, source};
  if (!(mask >> source & 1))
    fail("__shfl_sync at " + where(site) + " reads lane " + std::to_string(source) + ", which is not in mask " +
         hex(mask));
  if (arrive(Op::shuffle, mask, &mine, site)) {
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
      Operands& operands = operands_of<Operands>(static_cast<unsigned>(__builtin_ctz(rest)));
      operands.result = operands_of<Operands>(operands.source).value;
    }
    release(mask);
  }
  return mine.result;
}

unsigned ballot(unsigned mask, bool predicate, Site site) {
  struct Operands {
    bool predicate;
    unsigned result;
  } mine{predicate, 0};
  if (arrive(Op::vote, mask, &mine, site)) {
    unsigned votes = 0;
    for (uint32_t rest = mask; rest; rest &= rest - 1)
      votes |= operands_of<Operands>(static_cast<unsigned>(__builtin_ctz(rest))).predicate ? rest & -rest : 0;
    for (uint32_t rest = mask; rest; rest &= rest - 1)
      operands_of<Operands>(static_cast<unsigned>(__builtin_ctz(rest))).result = votes;
    release(mask);
  }
  return mine.result;
}

unsigned match(unsigned mask, uint64_t value, Site site) {
  struct Operands {
    uint64_t value;
    unsigned result;
  } mine{value, 0};
  if (arrive(Op::match, mask, &mine, site)) {
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
      Operands& operands = operands_of<Operands>(static_cast<unsigned>(__builtin_ctz(rest)));
      for (uint32_t others = mask; others; others &= others - 1)
        if (operands_of<Operands>(static_cast<unsigned>(__builtin_ctz(others))).value == operands.value)
          operands.result |= others & -others;
    }
    release(mask);
  }
  return mine.result;
}

int64_t reduce(Op op, unsigned mask, int64_t value, Site site) {
  struct Operands {
    int64_t value, result;
  } mine{value, 0};
  if (arrive(op, mask, &mine, site)) {
    int64_t total = operands_of<Operands>(static_cast<unsigned>(__builtin_ctz(mask))).value;
    for (uint32_t rest = mask & (mask - 1); rest; rest &= rest - 1) {
      const int64_t next = operands_of<Operands>(static_cast<unsigned>(__builtin_ctz(rest))).value;
      total = op == Op::reduce_add   ? total + next
              : op == Op::reduce_min ? std::min(total, next)
                                     : std::max(total, next);
    }
    for (uint32_t rest = mask; rest; rest &= rest - 1)
      operands_of<Operands>(static_cast<unsigned>(__builtin_ctz(rest))).result = total;
    release(mask);
  }
  return mine.result;
}

// One collective in place of five shuffles, with the same sums.
float warp_sum(float value, Site site) {
  struct Operands {
    float value;
  } mine{value};
  if (arrive(Op::warp_sum, 0xffffffffu, &mine, site)) {
    float sums[kWarpSize], next[kWarpSize];
    for (unsigned lane = 0; lane < kWarpSize; lane++) sums[lane] = operands_of<Operands>(lane).value;
    for (unsigned offset = 16; offset > 0; offset /= 2) {
      for (unsigned lane = 0; lane < kWarpSize; lane++) next[lane] = sums[lane] + sums[lane ^ offset];
      std::memcpy(sums, next, sizeof(sums));
    }
    for (unsigned lane = 0; lane < kWarpSize; lane++) operands_of<Operands>(lane).value = sums[lane];
    release(0xffffffffu);
  }
  return mine.value;
}

const void* carver_key(int index) { return reinterpret_cast<const void*>(static_cast<uintptr_t>(index) + 1); }

void* shared_array(const void* key, size_t bytes, Site site) {
  Grid& g = *grid;
  for (const SharedArray& array : g.arrays)
    if (array.key == key) {
      if (array.bytes != bytes) fail("shared array at " + where(site) + " differs in size between threads");
      return g.arena + array.offset;
    }
  const bool carved = reinterpret_cast<uintptr_t>(key) < 4096;
  const size_t padded = (bytes + 15) / 16 * 16;
  g.shared_bytes += carved ? padded : 0;
  if (g.shared_bytes > g.limit_bytes || g.arena_used + padded + kRedzone > kArenaBytes)
    fail("shared array at " + where(site) + " ends at byte " + std::to_string(g.shared_bytes) + " of " +
         std::to_string(g.limit_bytes) + " given to the launch");
  const size_t offset = g.arena_used;
  g.arena_used += padded + kRedzone;
  __asan_unpoison_memory_region(g.arena + offset, bytes);
  g.arrays.push_back({key, offset, bytes});
  for (size_t i = 0; i < padded / 16; i++) g.chunks[offset / 16 + i] = Chunk::array;
  return g.arena + offset;
}

Chunk& chunk_at(const void* address, const char* what, Site site) {
  const auto offset = static_cast<size_t>(static_cast<const uint8_t*>(address) - grid->arena);
  if (offset >= grid->arena_used || offset % 16 != 0 || grid->chunks[offset / 16] == Chunk::outside)
    fail(std::string(what) + " at " + where(site) + " is not 16-byte aligned or not in a shared array");
  return grid->chunks[offset / 16];
}

void cp_async16(void* shared, const void* global, bool valid, Site site) {
  Chunk& chunk = chunk_at(shared, "cp.async", site);
  if (chunk == Chunk::arriving) fail("cp.async at " + where(site) + " to where another one is on its way");
  if (reinterpret_cast<uintptr_t>(global) % 16 != 0) fail("cp.async at " + where(site) + " is not 16-byte aligned");
  chunk = Chunk::arriving;
  __tsan_write_range(shared, 16);
  std::memset(shared, kPoison, 16);
  __asan_poison_memory_region(shared, 16);
  if (self->num_copies == kMaxCopies) fail("cp.async at " + where(site) + " is one too many on its way");
  self->copies[self->num_copies++] = {shared, global, valid, self->open_group};
}

void cp_async_commit() { self->open_group++; }

void cp_async_wait_pending(unsigned pending) {
  Thread& thread = *self;
  unsigned num_left = 0;
  for (unsigned i = 0; i < thread.num_copies; i++) {
    const Copy copy = thread.copies[i];
    if (copy.group + pending >= thread.open_group) {
      thread.copies[num_left++] = copy;
      continue;
    }
    grid->chunks[static_cast<size_t>(static_cast<uint8_t*>(copy.to) - grid->arena) / 16] = Chunk::array;
    __asan_unpoison_memory_region(copy.to, 16);
    __tsan_write_range(copy.to, 16);
    if (copy.valid) __tsan_read_range(const_cast<void*>(copy.from), 16);
    if (copy.valid)
      std::memcpy(copy.to, copy.from, 16);
    else
      std::memset(copy.to, 0, 16);
  }
  thread.num_copies = num_left;
}

namespace {

void ldmatrix(uint32_t (&out)[4], const void* row, bool transposed, Site site) {
  struct Operands {
    const void* row;
    uint32_t* out;
  } mine{row, out};
  if (chunk_at(row, "ldmatrix", site) == Chunk::arriving)
    fail("ldmatrix at " + where(site) + " reads what a cp.async not waited for brings");
  __tsan_read_range(const_cast<void*>(row), 16);
  if (!arrive(Op::ldmatrix, 0xffffffffu, &mine, site)) return;
  for (unsigned m = 0; m < 4; m++) {
    uint16_t matrix[8][8];
    for (unsigned r = 0; r < 8; r++) std::memcpy(matrix[r], operands_of<Operands>(m * 8 + r).row, 16);
    for (unsigned lane = 0; lane < kWarpSize; lane++) {
      const unsigned i = lane / 4, j = lane % 4 * 2;
      const uint32_t low = transposed ? matrix[j][i] : matrix[i][j];
      const uint32_t high = transposed ? matrix[j + 1][i] : matrix[i][j + 1];
      operands_of<Operands>(lane).out[m] = low | high << 16;
    }
  }
  release(0xffffffffu);
}

using Row = float __attribute__((vector_size(32)));

float low_half(uint32_t pair) { return from_bits<float>(static_cast<uint64_t>(pair) << 16 & 0xffffffffu); }
float high_half(uint32_t pair) { return from_bits<float>(pair & 0xffff0000u); }

}  // namespace

void ldmatrix_x4(uint32_t (&out)[4], const void* row, Site site) { ldmatrix(out, row, false, site); }
void ldmatrix_x4_trans(uint32_t (&out)[4], const void* row, Site site) { ldmatrix(out, row, true, site); }

void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Site site) {
  struct Operands {
    float* c;
    const uint32_t* a;
    uint32_t b0, b1;
  } mine{c, a, b0, b1};
  if (!arrive(Op::mma, 0xffffffffu, &mine, site)) return;
  Row right[16], sum[16];
  float left[16][16];
  for (unsigned lane = 0; lane < kWarpSize; lane++) {
    const Operands& o = operands_of<Operands>(lane);
    const unsigned g = lane / 4, t = lane % 4 * 2;
    for (unsigned i = 0; i < 4; i++) {
      const unsigned row = g + i % 2 * 8, column = t + i / 2 * 8;
      left[row][column] = low_half(o.a[i]);
      left[row][column + 1] = high_half(o.a[i]);
      sum[g + i / 2 * 8][t + i % 2] = o.c[i];
    }
    right[t][g] = low_half(o.b0);
    right[t + 1][g] = high_half(o.b0);
    right[t + 8][g] = low_half(o.b1);
    right[t + 9][g] = high_half(o.b1);
  }
  for (unsigned i = 0; i < 16; i++) {
    Row row = sum[i];
    for (unsigned k = 0; k < 16; k++) row += left[i][k] * right[k];
    sum[i] = row;
  }
  for (unsigned lane = 0; lane < kWarpSize; lane++)
    for (unsigned i = 0; i < 4; i++) operands_of<Operands>(lane).c[i] = sum[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  release(0xffffffffu);
}

}  // namespace simt
