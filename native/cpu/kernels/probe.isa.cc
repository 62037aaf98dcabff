// Hardware limits: memory bandwidth of a pure read, and multiply-adds that stay in registers.
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/simd.h"
#if NDS_AMX
#include "cpu/kernels/amx.h"
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
// A round is one product of tiles.
double probe_multiply_add(int64_t rounds, float* sink) {
  constexpr double kFlops = 2 * 16 * 16 * 32;
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
    amx_multiply_bf16<0, kAmxA, kAmxB>();
    amx_multiply_bf16<2, kAmxA + 1, kAmxB>();
    amx_multiply_bf16<1, kAmxA, kAmxB + 1>();
    amx_multiply_bf16<3, kAmxA + 1, kAmxB + 1>();
  }
  amx_store<0>(tile, 64);
  *sink = tile[0];
  return kFlops * static_cast<double>(done);
}
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
      chains[c] = fma(x, x, chains[c]);
#endif
    }
  }
  F32x16 total = chains[0];
  for (int c = 1; c < kChains; c++) total = total + chains[c];
  *sink = reduce_add(total);
  return kFlops * kChains * static_cast<double>(rounds);
}
#endif

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
