// Hardware limits: memory bandwidth of a pure read, and multiply-adds that stay in registers.
#include <cstring>

#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/linear_groups.h"
#include "cpu/kernels/simd.h"
#if NDS_AMX
#include "cpu/kernels/amx_block.h"
#endif

namespace nds::cpu::NDS_ISA_NAMESPACE {

float probe_read(const uint8_t* data, int64_t bytes) {
  constexpr int kAhead = 4096;  // prefetch distance, bytes
  F32x16 sums[4] = {zero(), zero(), zero(), zero()};
  for (int64_t i = 0; i + 256 <= bytes; i += 256) {
    for (int j = 0; j < 4; j++) {
      prefetch(data + i + kAhead + j * 64);
      sums[j] = max(sums[j], load(reinterpret_cast<const float*>(data + i + j * 64)));
    }
  }
  return reduce_max(max(max(sums[0], sums[1]), max(sums[2], sums[3])));
}

#if NDS_AMX
namespace {

// A round is one product of tiles. Product: AmxBf16 or AmxInt8.
template <typename Product>
double probe_tiles(int64_t rounds, double ops, float* sink) {
  alignas(64) uint8_t tile[1024] = {};
  AmxState state;
  state.set(2 * kAmxRows);
  amx_zero<0>();
  amx_zero<1>();
  amx_zero<2>();
  amx_zero<3>();
  amx_load<kAmxA>(tile, 64);
  amx_load<kAmxA + 1>(tile, 64);
  amx_load<kAmxB>(tile, 64);
  amx_load<kAmxB + 1>(tile, 64);
  int64_t done = 0;
  for (; done < rounds; done += 4) {
    Product::template multiply<0, kAmxA, kAmxB>();
    Product::template multiply<2, kAmxA + 1, kAmxB>();
    Product::template multiply<1, kAmxA, kAmxB + 1>();
    Product::template multiply<3, kAmxA + 1, kAmxB + 1>();
  }
  amx_store<0>(tile, 64);
  *sink = tile[0];
  return ops * static_cast<double>(done);
}

}  // namespace

double probe_multiply_add(int64_t rounds, float* sink) { return probe_tiles<AmxBf16>(rounds, 2 * 16 * 16 * 32, sink); }
double probe_int8(int64_t rounds, float* sink) { return probe_tiles<AmxInt8>(rounds, 2 * 16 * 16 * 64, sink); }
#else
// Chains start at different values, or the compiler would merge them.
double probe_multiply_add(int64_t rounds, float* sink) {
  // Chains take 12 registers (1 zmm, 2 ymm or 4 xmm each), or 24 of arm64, which fit next to x and hide the latency.
  constexpr int kChains = NDS_AVX512 ? 12 : NDS_AVX2 || NDS_NEON ? 6 : 3;
  F32x16 chains[kChains];
  for (int c = 0; c < kChains; c++) chains[c] = set1(static_cast<float>(c));
#if NDS_AVX512_BF16
  constexpr double kFlops = 64;  // of one vdpbf16ps: 32 products, 32 additions
  const __m512bh x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3c003c00));
#elif NDS_NEON_BF16
  constexpr double kFlops = 128;  // of four bfmmla: 64 products, 64 additions
  const bfloat16x8_t x = vreinterpretq_bf16_u32(vdupq_n_u32(0x3c003c00));
#else
  constexpr double kFlops = 32;
  const F32x16 x = set1(1e-3f);
#endif
  for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; c++) {
#if NDS_AVX512_BF16
      chains[c].v = _mm512_dpbf16_ps(chains[c].v, x, x);
#elif NDS_NEON_BF16
      for (float32x4_t& chain : chains[c].v) chain = vbfmmlaq_f32(chain, x, x);
#else
      chains[c] = fma(chains[c], x, x);  // no product of constants, which a compiler might take out of the loop
#endif
    }
  }
  F32x16 total = chains[0];
  for (int c = 1; c < kChains; c++) total = total + chains[c];
  *sink = reduce_add(total);
  return kFlops * kChains * static_cast<double>(rounds);
}

#if NDS_AVX2 || NDS_AVX512
namespace {

// x; the compiler must take it for another value, or it would multiply once for all rounds.
inline I32x16 renewed(I32x16 x) {
#if NDS_AVX512
  asm volatile("" : "+v"(x.v));
#else
  asm volatile("" : "+x"(x.lo), "+x"(x.hi));
#endif
  return x;
}

}  // namespace
#endif

// Of the products of bytes that the int4 kernel takes, which are the fastest.
double probe_int8(int64_t rounds, float* sink) {
  constexpr double kOps = NDS_NEON_I8MM ? 256 : 128;  // of a chain: half products, half additions
  int32_t dots[16];
#if NDS_AVX2 || NDS_AVX512
  // Chains take 12 registers, or 10 of the 16 of AVX2, which fit next to both factors and hide the latency.
  constexpr int kChains = NDS_AVX512 ? 12 : 5;
  I32x16 chains[kChains];
  for (int c = 0; c < kChains; c++) chains[c] = set1_i32(c);
  const I32x16 ones = set1_i32(0x01010101);
  for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; c++) chains[c] = Int4Dots::add(chains[c], ones, renewed(ones));
  }
  for (int c = 1; c < kChains; c++) chains[0] = chains[0] + chains[c];
  store_i32(dots, chains[0]);
#elif NDS_NEON
  constexpr int kChains = 6;
  I32x16 chains[kChains];
  for (int c = 0; c < kChains; c++) chains[c] = set1_i32(c);
  int8x16_t ones = vdupq_n_s8(1);
  for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 24
    for (int c = 0; c < kChains * 4; c++) {
      int32x4_t& dot = chains[c / 4].v[c % 4];
      asm volatile("" : "+w"(ones));  // or the compiler would multiply once for all rounds
#if NDS_NEON_I8MM
      dot = vusmmlaq_s32(dot, vreinterpretq_u8_s8(ones), ones);
#elif NDS_NEON_DOT
      dot = add_dot<0>(dot, ones, ones);
#else
      dot = add_dot(dot, products_of(ones, ones));
#endif
    }
  }
  for (int c = 1; c < kChains; c++) chains[0] = chains[0] + chains[c];
  store_i32(dots, chains[0]);
#else
  constexpr int kChains = 1;
  uint8_t quad[64];
  std::memset(quad, 1, sizeof quad);
  const int8_t x[4] = {1, 1, 1, 1};
  IntDots::Dot dot = IntDots::begin(0);
  for (int64_t i = 0; i < rounds; i++) {
    asm volatile("" : : "r"(quad) : "memory");  // or the compiler would multiply once for all rounds
    IntDots::add_quad(dot, quad, x);
  }
  std::memcpy(dots, dot.v, sizeof dots);
#endif
  // Of every lane, or the compiler would leave out those that nobody reads.
  *sink = 0;
  for (int dot : dots) *sink += static_cast<float>(dot);
  return kOps * kChains * static_cast<double>(rounds);
}
#endif

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
