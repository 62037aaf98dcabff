// The micro-kernel of linear: R rows of x times one panel of W, chunk by chunk, for stored dtypes and quantized ones.
#pragma once
#include <cstdint>

#include "core/program/packed_linear.h"
#include "cpu/kernels/fp8_decode.h"
#include "cpu/kernels/simd.h"
#if NDS_NEON
#include "cpu/kernels/linear_steps_neon.h"
#else
#include "cpu/kernels/linear_steps.h"
#endif
#include "cpu/kernels/linear_groups.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Whether a tile sums the halves of a panel (16 columns each) one after the other. The sums of half a panel take two
// ymm per row: with 6 rows, 12 of the 16 of AVX2, next to one of broadcast x and two of weights. Those of both halves
// would with 3 rows, but g++ spills some. On NEON half a panel takes four registers per row: with 4 rows, 16 of 32;
// with more, g++ or clang++ spills sums.
constexpr bool takes_halves(int64_t rows) { return (NDS_AVX2 || NDS_NEON) && rows > 2; }

// Sums of one chunk over H halves of the panel from `half` on, one accumulator chain per output. In registers only
// where it is inlined.
template <typename Steps, int R, int H>
[[gnu::always_inline]] inline void sum_halves(const TileArgs& args, const Chunk& chunk, int half, const uint8_t*& ahead,
                                              Sums<R, H>& sums) {
#pragma GCC unroll 12
  for (int r = 0; r < R; r++) {
    sums.v[r][0] = zero();
    sums.v[r][H - 1] = zero();
  }
  const uint8_t* w = args.panel + chunk.offset + half * (Steps::kStepBytes / 2);
  RowPointers<R> x(args.x + int64_t{chunk.k_begin} * (Steps::kXBytes / Steps::kPerStep), args.ldx);
  const auto prefetch_step = [&](int64_t offset) {  // of the step's weights from w
    for (int line = 0; line < H * Steps::kStepBytes / 2; line += 64) {
      prefetch(w + offset + kNearAhead + line);
      prefetch_l2(ahead + line);
    }
    ahead += args.prefetch_step;
  };
  int steps = chunk.k_len / Steps::kPerStep;
#if NDS_NEON_BF16
  if constexpr (Steps::kTwoSteps) {
    Steps::take_two_steps(w, x, steps / 2, sums, prefetch_step);
    steps %= 2;
  }
#endif
  for (; steps > 0; steps--) {
    prefetch_step(0);
    Steps::step(w, x, sums);
    w += Steps::kStepBytes;
    x.advance(Steps::kXBytes);
  }
  if (chunk.k_len % Steps::kPerStep != 0) Steps::odd_step(w, x, sums);
}

// Sums of one chunk: both halves in one pass if their sums fit in registers, else one after the other.
template <typename Steps>
struct StepChunks {
  template <int R, typename Push>
  [[gnu::always_inline]] static void sum(const TileArgs& args, const Chunk& chunk, Cursor& cursor, Push push) {
    constexpr int kHalves = takes_halves(R) ? 1 : 2;
#pragma GCC unroll 2
    for (int half = 0; half < 2; half += kHalves) {
      Sums<R, kHalves> sums;
      sum_halves<Steps>(args, chunk, half, cursor.ahead, sums);
      push(half, sums);
    }
  }
};

// Adds the `merges` sums from stack[0] on, the last first, to those of halves from `half` on, and leaves the result in
// stack[0]. It stays in registers meanwhile.
template <int R, int H>
[[gnu::always_inline]] inline void join_sums(Sums<R>* stack, int merges, int half, Sums<R, H>& sums) {
  for (int i = merges - 1; i >= 0; i--) {
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
      for (int h = 0; h < H; h++) sums.v[r][h] = stack[i].v[r][half + h] + sums.v[r][h];
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
    for (int h = 0; h < H; h++) stack[0].v[r][half + h] = sums.v[r][h];
  }
}

template <int R>
inline void store_root(const TileArgs& args, int root, const Sums<R>& sums) {
  float* y = args.y + root * args.root_stride;
#pragma GCC unroll 12
  for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      const F32x16 sum = sums.v[r][half];
      store(y + r * args.ldy + half * 16, args.bias == nullptr ? sum : sum + load(args.bias + half * 16));
    }
  }
}

// All chunks of R rows, joined on a stack by w->merges. Chunks: StepChunks or GroupChunks.
template <typename Chunks, int R>
void linear_tile(const TileArgs& args) {
  Sums<R> stack[kMaxDepth];
  int depth = 0;
  Cursor cursor{args.prefetch, args.x};
  ChunkWeights weights(args);
  for (int c = 0; c < args.w->num_chunks; c++) {
    const Chunk chunk = weights.chunk(c);
    const int merges = args.w->merges[c];
    depth -= merges;
    Chunks::template sum<R>(args, chunk, cursor, [&](int half, auto& sums) __attribute__((always_inline)) {
      join_sums(stack + depth, merges, half, sums);
    });
    depth++;
  }
  for (int root = 0; root < depth; root++) store_root<R>(args, root, stack[root]);
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
