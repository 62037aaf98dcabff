// The micro-kernel of linear: R rows of x times one panel of W, chunk by chunk, for each pair of stored dtypes.
#pragma once
#include <cstdint>
#include <cstring>

#include "core/program/packed_linear.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Whether a tile sums the halves of a panel (16 columns each) one after the other. The sums of half a panel take two
// ymm per row: with 6 rows, 12 of the 16 of AVX2, next to one of broadcast x and two of weights.
constexpr bool takes_halves(int64_t rows) { return NDS_ISA == 1 && rows > 3; }

// A tile: some rows of x, one panel of W.
struct TileArgs {
  const PackedLinear* w;
  const uint8_t* panel;
  const uint8_t* x;  // first row of the tile
  int64_t ldx;       // bytes
  float* y;          // [rows, 32] at the panel's columns; roots are root_stride apart
  int64_t ldy;
  int64_t root_stride;
  const float* bias;        // [32] of the panel, or null
  const uint8_t* prefetch;  // first address prefetched
  int64_t prefetch_step;    // bytes by which it advances per k-step, in each pass over one or both halves
};

// Sums of R rows over H halves of a panel, 16 columns each.
template <int R, int H = 2>
struct Sums {
  F32x16 v[R][H];
};

// The rows of x at the current k. One pointer serves three rows, so that twelve rows take four registers.
template <int R>
struct RowPointers {
  const uint8_t* base[(R + 2) / 3];
  int64_t ldx;

  const uint8_t* row(int r) const { return base[r / 3] + r % 3 * ldx; }
  void advance(int64_t bytes) {
    for (int i = 0; i < (R + 2) / 3; i++) {
      base[i] += bytes;
#if defined(__GNUC__)
      asm("" : "+r"(base[i]));  // keeps the compiler from giving every row a register of its own
#endif
    }
  }
};

inline int32_t read_i32(const uint8_t* p) {
  int32_t value;
  std::memcpy(&value, p, 4);
  return value;
}
inline uint16_t read_u16(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, 2);
  return value;
}
inline F32x16 low_bf16(I32x16 pair) { return as_f32(shl<16>(pair)); }
#if NDS_ISA == 1
// A zero made where it is used, at no cost. The compiler would hold a zero, or a mask, in a register throughout and
// spill a sum for it.
inline __m256i fresh_zero() {
  __m256i zero;
  asm volatile("vpxor %0, %0, %0" : "=x"(zero));
  return zero;
}
inline F32x16 high_bf16(I32x16 pair) {
  const __m256i zero = fresh_zero();
  return as_f32(I32x16{_mm256_blend_epi16(zero, pair.lo, 0xaa), _mm256_blend_epi16(zero, pair.hi, 0xaa)});
}
#else
inline F32x16 high_bf16(I32x16 pair) { return as_f32(pair & set1_i32(static_cast<int32_t>(0xffff0000u))); }
#endif

// One activation x, broadcast to all lanes as fp32.
struct XF32 {
  static constexpr int kBytes = 4;
  static F32x16 one(const uint8_t* x) { return as_f32(set1_i32(read_i32(x))); }
};
struct XBf16 {
  static constexpr int kBytes = 2;
  static F32x16 one(const uint8_t* x) { return low_bf16(set1_i32(read_u16(x))); }
};

#if NDS_ISA == 1
// sum + a * b, in the registers of sum; b is the same in all lanes. With all sixteen registers taken, the compiler
// would overwrite a or b with the result of an fma and spill sums to the stack, where the next addition waits for them.
inline F32x16 fma_in_place(F32x16 a, F32x16 b, F32x16 sum) {
  asm("vfmadd231ps %2, %1, %0" : "+x"(sum.lo) : "x"(a.lo), "x"(b.lo));
  asm("vfmadd231ps %2, %1, %0" : "+x"(sum.hi) : "x"(a.hi), "x"(b.lo));
  return sum;
}
#endif

// sums[r][half] += w(half) * x(r) for one k. With three rows, AVX2 has no registers for x next to both halves of
// converted weights. kInPlace: weights are converted and x is fp32, so x is read again for the second half. Other
// dtypes keep x in registers, and their tiles have at most three rows.
template <bool kInPlace, int R, int H, typename LoadW, typename LoadX>
inline void add_products(Sums<R, H>& sums, LoadW w, LoadX x) {
#if NDS_ISA == 1
  for (int half = 0; half < H; half++) {
    const F32x16 wh = w(half);
    if (kInPlace && R >= 3) {
      for (int r = 0; r < R; r++) sums.v[r][half] = fma_in_place(wh, x(r), sums.v[r][half]);
      if (H == 2) asm volatile("" ::: "memory");  // forces x to be read again
    } else {
      for (int r = 0; r < R; r++) sums.v[r][half] = fma(wh, x(r), sums.v[r][half]);
    }
  }
#else
  const F32x16 w0 = w(0), w1 = w(1);
  for (int r = 0; r < R; r++) {
    const F32x16 xr = x(r);
    sums.v[r][0] = fma(w0, xr, sums.v[r][0]);
    sums.v[r][1] = fma(w1, xr, sums.v[r][1]);
  }
#endif
}

// Weights of one k-step (32 columns) as fp32, half by half.
struct WF32 {
  static constexpr bool kConverted = false;
  static constexpr int kStepBytes = 128;
  static F32x16 load_half(const uint8_t* w, int half) { return load(reinterpret_cast<const float*>(w) + half * 16); }
};
struct WF16 {
  static constexpr bool kConverted = true;
  static constexpr int kStepBytes = 64;
  static F32x16 load_half(const uint8_t* w, int half) {
    return load_f16(reinterpret_cast<const uint16_t*>(w) + half * 16);
  }
};
// fp32 products, one k per step.
template <typename W, typename X>
struct SingleSteps {
  static constexpr int kPerStep = 1;
  static constexpr int kStepBytes = W::kStepBytes;
  static constexpr int kXBytes = X::kBytes;
  static constexpr bool kInPlace = W::kConverted && X::kBytes == 4;

  template <int R, int H>
  static void step(const uint8_t* w, const RowPointers<R>& x, Sums<R, H>& sums) {
    add_products<kInPlace>(
        sums, [&](int half) { return W::load_half(w, half); }, [&](int r) { return X::one(x.row(r)); });
  }
  template <int R, int H>
  static void odd_step(const uint8_t*, const RowPointers<R>&, Sums<R, H>&) {}
};

// bf16 weights by fp32 products, two k per step: the even one, then the odd one.
template <typename X>
struct PairSteps {
  static constexpr int kPerStep = 2;
  static constexpr int kStepBytes = 128;
  static constexpr int kXBytes = 2 * X::kBytes;
  static constexpr bool kInPlace = X::kBytes == 4;

  static I32x16 load_pairs(const uint8_t* w, int half) {
    return load_i32(reinterpret_cast<const int32_t*>(w + half * 64));
  }

  template <int R, int H>
  static void step(const uint8_t* w, const RowPointers<R>& x, Sums<R, H>& sums) {
    odd_step(w, x, sums);
    add_products<kInPlace>(
        sums, [&](int half) { return high_bf16(load_pairs(w, half)); },
        [&](int r) { return X::one(x.row(r) + X::kBytes); });
  }
  // The even k of a step, alone for the last k of an odd chunk: x[1] belongs to another chunk or lies past the row.
  template <int R, int H>
  static void odd_step(const uint8_t* w, const RowPointers<R>& x, Sums<R, H>& sums) {
    add_products<kInPlace>(
        sums, [&](int half) { return low_bf16(load_pairs(w, half)); }, [&](int r) { return X::one(x.row(r)); });
  }
};

#if NDS_ISA == 3
// bf16 weights and activations by vdpbf16ps, which treats denormals as zeros.
struct DotSteps {
  static constexpr int kPerStep = 2;
  static constexpr int kStepBytes = 128;
  static constexpr int kXBytes = 4;
  static constexpr bool kInPlace = false;

  template <int R, int H, typename LoadX>
  static void add_dots(const uint8_t* w, Sums<R, H>& sums, LoadX x) {
    const __m512bh w0 = reinterpret_cast<__m512bh>(_mm512_load_si512(w));
    const __m512bh w1 = reinterpret_cast<__m512bh>(_mm512_load_si512(w + 64));
    for (int r = 0; r < R; r++) {
      const __m512bh xr = reinterpret_cast<__m512bh>(_mm512_set1_epi32(x(r)));
      sums.v[r][0].v = _mm512_dpbf16_ps(sums.v[r][0].v, w0, xr);
      sums.v[r][1].v = _mm512_dpbf16_ps(sums.v[r][1].v, w1, xr);
    }
  }
  template <int R, int H>
  static void step(const uint8_t* w, const RowPointers<R>& x, Sums<R, H>& sums) {
    add_dots(w, sums, [&](int r) { return read_i32(x.row(r)); });
  }
  template <int R, int H>
  static void odd_step(const uint8_t* w, const RowPointers<R>& x, Sums<R, H>& sums) {
    add_dots(w, sums, [&](int r) { return int32_t{read_u16(x.row(r))}; });
  }
};
#endif

// Sums of one chunk over H halves of the panel from `half` on, one accumulator chain per output.
template <typename Steps, int R, int H>
inline void sum_halves(const TileArgs& args, const Chunk& chunk, int half, const uint8_t*& ahead, Sums<R, H>& sums) {
  for (int r = 0; r < R; r++) {
    sums.v[r][0] = zero();
    sums.v[r][H - 1] = zero();
  }
  const uint8_t* w = args.panel + chunk.offset + half * (Steps::kStepBytes / 2);
  RowPointers<R> x;
  x.ldx = args.ldx;
  const uint8_t* first = args.x + int64_t{chunk.k_begin} * (Steps::kXBytes / Steps::kPerStep);
  for (int i = 0; i < (R + 2) / 3; i++) x.base[i] = first + i * 3 * args.ldx;
  for (int steps = chunk.k_len / Steps::kPerStep; steps > 0; steps--) {
    prefetch(ahead);
    if (H == 2) prefetch(ahead + 64);
    ahead += args.prefetch_step;
    Steps::step(w, x, sums);
    w += Steps::kStepBytes;
    x.advance(Steps::kXBytes);
  }
  if (chunk.k_len % Steps::kPerStep != 0) Steps::odd_step(w, x, sums);
}

// Sums of one chunk: both halves in one pass if their sums fit in registers, else one after the other.
template <typename Steps, int R>
inline void sum_chunk(const TileArgs& args, const Chunk& chunk, const uint8_t*& ahead, Sums<R>& sums) {
  if constexpr (!takes_halves(R)) {
    sum_halves<Steps>(args, chunk, 0, ahead, sums);
  } else {
    for (int half = 0; half < 2; half++) {
      Sums<R, 1> sums_of_half;
      sum_halves<Steps>(args, chunk, half, ahead, sums_of_half);
      for (int r = 0; r < R; r++) sums.v[r][half] = sums_of_half.v[r][0];
    }
  }
}

template <int R>
inline void store_root(const TileArgs& args, int root, const Sums<R>& sums) {
  float* y = args.y + root * args.root_stride;
  for (int r = 0; r < R; r++) {
    for (int half = 0; half < 2; half++) {
      const F32x16 sum = sums.v[r][half];
      store(y + r * args.ldy + half * 16, args.bias == nullptr ? sum : sum + load(args.bias + half * 16));
    }
  }
}

// All chunks of R rows, joined on a stack by w->merges.
template <typename Steps, int R>
void linear_tile(const TileArgs& args) {
  Sums<R> stack[kMaxDepth];
  int depth = 0;
  const uint8_t* ahead = args.prefetch;
  const int num_chunks = args.w->num_chunks;
  for (int c = 0; c < num_chunks; c++) {
    Sums<R> sums;
    sum_chunk<Steps, R>(args, args.w->chunks[c], ahead, sums);
    for (int merges = args.w->merges[c]; merges > 0; merges--) {
      const Sums<R>& lower = stack[--depth];
      for (int r = 0; r < R; r++) {
        sums.v[r][0] = lower.v[r][0] + sums.v[r][0];
        sums.v[r][1] = lower.v[r][1] + sums.v[r][1];
      }
    }
    if (c + 1 < num_chunks) {
      stack[depth++] = sums;
    } else {
      store_root<R>(args, depth, sums);
    }
  }
  for (int root = 0; root < depth; root++) store_root<R>(args, root, stack[root]);
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
