// Turns panels of float8_e4m3 into those of bf16: the values that SliceReader has, by the layout of packed_linear.h.
#pragma once
#include <cstdint>

#include "core/program/packed_linear.h"
#include "cpu/kernels/linear_rows.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Bytes that are prefetched ahead of those decoded.
constexpr int64_t kFp8ReadAhead = 4096;

// Codes moved to the bits of a bf16, in halves of 16 bits: 2^-120 times their value, denormals included.
// odd: of bytes 1 and 3 of each lane; even: of bytes 0 and 2.
#if NDS_AVX512
inline I32x16 odd_codes(I32x16 a) {
  return {_mm512_and_si512(_mm512_srai_epi16(a.v, 4), _mm512_set1_epi16(static_cast<int16_t>(0x87f0)))};
}
inline I32x16 even_codes(I32x16 a) { return odd_codes({_mm512_slli_epi16(a.v, 8)}); }
#elif NDS_AVX2
inline __m256i odd_codes_half(__m256i a) {
  return _mm256_and_si256(_mm256_srai_epi16(a, 4), _mm256_set1_epi16(static_cast<int16_t>(0x87f0)));
}
inline I32x16 odd_codes(I32x16 a) { return {odd_codes_half(a.lo), odd_codes_half(a.hi)}; }
inline I32x16 even_codes(I32x16 a) {
  return {odd_codes_half(_mm256_slli_epi16(a.lo, 8)), odd_codes_half(_mm256_slli_epi16(a.hi, 8))};
}
#else
inline I32x16 odd_codes(I32x16 a) {
  const I32x16 sign = set1_i32(static_cast<int32_t>(0x80008000u)), magnitude = set1_i32(0x07f007f0);
  return (a & sign) | (shr<4>(a) & magnitude);
}
inline I32x16 even_codes(I32x16 a) { return odd_codes(shl<8>(a)); }
#endif

// The bf16 nearest to each product, ties to even; no value or product is denormal or too large.
#if NDS_AVX512_BF16
inline I32x16 rounded_pairs(F32x16 low, F32x16 high) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return {_mm512_permutexvar_epi16(order, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high.v, low.v)))};
}
#else
inline I32x16 rounded(F32x16 value) {
  const I32x16 bits = as_i32(value);
  return bits + set1_i32(0x7fff) + (shr<16>(bits) & set1_i32(1));
}
inline I32x16 rounded_pairs(F32x16 low, F32x16 high) {
  return shr<16>(rounded(low)) | (rounded(high) & set1_i32(static_cast<int32_t>(0xffff0000u)));
}
#endif

// Pairs of bf16 of 16 columns, from pairs of codes.
inline I32x16 scaled_pairs(I32x16 codes, F32x16 scale) {
  const F32x16 low = as_f32(shl<16>(codes)), high = as_f32(codes & set1_i32(static_cast<int32_t>(0xffff0000u)));
  return rounded_pairs(low * scale, high * scale);
}

// Decodes the chunks of one panel, which are taken in order.
class Fp8Panel {
 public:
  Fp8Panel(const PackedLinear& w, const uint8_t* panel)
      : w_(w), panel_(panel), scales_(reinterpret_cast<const float*>(panel + w.decoded_bytes / 2)) {}

  // out: [ceil(k_len / 4) * 2][32 columns][2] of bf16.
  void decode(const Chunk& chunk, uint8_t* out) {
    const uint8_t* codes = panel_ + chunk.offset / 2;
    for (int k = 0; k < chunk.k_len;) {
      const int in_scale = w_.scale_cols - (w_.first_col + chunk.k_begin + k) % w_.scale_cols;
      const int left = chunk.k_len - k;
      const int run = in_scale < left ? in_scale : left;
      decode_run(codes, (run + kFp8Quad - 1) / kFp8Quad, out);
      codes += run * kPanel;
      out += run * kPanel * 2;
      k += run;
    }
  }

 private:
  void decode_run(const uint8_t* codes, int num_quads, uint8_t* out) {
    const F32x16 scale[2] = {load(scales_), load(scales_ + 16)};
    scales_ += kPanel;
    for (int quad = 0; quad < num_quads; quad++) {
      prefetch(codes + kFp8ReadAhead);
      prefetch(codes + kFp8ReadAhead + 64);
      for (int half = 0; half < 2; half++) {
        const I32x16 bytes = load_i32(reinterpret_cast<const int32_t*>(codes + half * 64));
        int32_t* const pairs = reinterpret_cast<int32_t*>(out + half * 64);
        store_i32(pairs, scaled_pairs(even_codes(bytes), scale[half]));
        store_i32(pairs + kPanel, scaled_pairs(odd_codes(bytes), scale[half]));
      }
      codes += kPanel * kFp8Quad;
      out += kPanel * kFp8Quad * 2;
    }
  }

  const PackedLinear& w_;
  const uint8_t* const panel_;
  const float* scales_;  // of the next run
};

// The chunks of a tile's panel, taken in order, each decoded where it has codes.
class ChunkWeights {
 public:
  explicit ChunkWeights(const TileArgs& args) : args_(args), panel_(*args.w, args.codes) {}

  // The chunk, at args.panel.
  Chunk chunk(int c) {
    Chunk chunk = args_.w->chunks[c];
    if (args_.codes == nullptr) return chunk;
    panel_.decode(chunk, args_.decoded);
    chunk.offset = 0;
    return chunk;
  }

 private:
  const TileArgs& args_;
  Fp8Panel panel_;
};

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
