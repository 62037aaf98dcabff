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

#if NDS_AMX
// The 128 magnitudes of codes under one scale as bf16, by bytes, for columns that all have it.
class Fp8Table {
 public:
  // scale: times 2^120.
  explicit Fp8Table(float scale) {
    alignas(64) uint8_t low[128], high[128];
    for (int first = 0; first < 128; first += 16) {
      const I32x16 code = load_i32(kCounts) + set1_i32(first);
      // Denormals are made by a product, since one with a denormal takes as long as the table.
      const F32x16 normal = as_f32(shl<20>(code) + set1_i32(120 << 23)), denormal = to_f32(code) * set1(0x1p-9f);
      const F32x16 value = select(lt(code, set1_i32(8)), denormal, normal) * set1(scale * 0x1p-120f);
      const __m256i rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value.v));
      _mm_store_si128(reinterpret_cast<__m128i*>(low + first), _mm256_cvtepi16_epi8(rounded));
      _mm_store_si128(reinterpret_cast<__m128i*>(high + first), _mm256_cvtepi16_epi8(_mm256_srli_epi16(rounded, 8)));
    }
    for (int half = 0; half < 2; half++) {
      low_[half] = _mm512_load_si512(low + half * 64);
      high_[half] = _mm512_load_si512(high + half * 64);
    }
  }

  // Decodes a quad of 16 columns to two pairs, kPanel dwords apart.
  void decode(I32x16 codes, int32_t* pairs) const {
    // Of each four columns, k 0 and 1, then k 2 and 3.
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    const __m512i ordered = _mm512_shuffle_epi8(codes.v, order);
    const __m512i low = _mm512_permutex2var_epi8(low_[0], ordered, low_[1]);
    const __m512i magnitude = _mm512_permutex2var_epi8(high_[0], ordered, high_[1]);
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    const __m512i high = _mm512_xor_si512(magnitude, _mm512_and_si512(ordered, sign));
    _mm512_storeu_si512(pairs, _mm512_unpacklo_epi8(low, high));
    _mm512_storeu_si512(pairs + kPanel, _mm512_unpackhi_epi8(low, high));
  }

 private:
  alignas(64) static constexpr int32_t kCounts[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

  __m512i low_[2], high_[2];
};

// Whether all columns of a run have one scale.
inline bool has_one_scale(const float* scales) {
  const int32_t* const all = reinterpret_cast<const int32_t*>(scales);
  const I32x16 first = set1_i32(all[0]);
  return bits(eq(load_i32(all), first) & eq(load_i32(all + 16), first)) == 0xffff;
}
#endif

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
    const float* const scales = scales_;
    scales_ += kPanel;
#if NDS_AMX
    if (has_one_scale(scales)) return decode_by_table(Fp8Table(scales[0]), codes, num_quads, out);
#endif
    const F32x16 scale[2] = {load(scales), load(scales + 16)};
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

#if NDS_AMX
  static void decode_by_table(const Fp8Table& table, const uint8_t* codes, int num_quads, uint8_t* out) {
    for (int quad = 0; quad < num_quads; quad++) {
      prefetch(codes + kFp8ReadAhead);
      prefetch(codes + kFp8ReadAhead + 64);
      for (int half = 0; half < 2; half++) {
        const I32x16 bytes = load_i32(reinterpret_cast<const int32_t*>(codes + half * 64));
        table.decode(bytes, reinterpret_cast<int32_t*>(out + half * 64));
      }
      codes += kPanel * kFp8Quad;
      out += kPanel * kFp8Quad * 2;
    }
  }
#endif

  const PackedLinear& w_;
  const uint8_t* const panel_;
  const float* scales_;  // of the next run
};

// The chunks of a tile's panel, taken in order, each decoded where it has codes.
class ChunkWeights {
 public:
  explicit ChunkWeights(const TileArgs& args)
      : args_(args), panel_(*args.w, args.codes != nullptr ? args.codes : args.panel) {}

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
