// Tiles of int4 with multipliers, decoded to the layout of int8 for linear_amx_int8.h.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "cpu/kernels/linear_rows.h"
#include "cpu/kernels/quantized_row.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Prefetch distance from memory to L2, bytes.
constexpr int64_t kInt4ReadAhead = 4096;

// Of 16 columns: q * multiplier + 128 from nibbles, by bytes; with zero points, where multipliers are 1, q of zero
// point 8 moved to theirs. zeros: null or [16].
class Int4Columns {
 public:
  Int4Columns(const uint8_t* multipliers, const uint8_t* zeros) {
    const __m512i signed_dwords = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(multipliers)));
    const __m512i magnitudes = _mm512_abs_epi32(signed_dwords);
    const __mmask16 negative = _mm512_movepi32_mask(signed_dwords);
    // With a negative multiplier, nibbles c become 15 - c, and c - 8 times the multiplier is (15 - c) - 7 times its
    // magnitude: products of bytes are never negative and do not borrow from each other.
    turned_ = _mm512_maskz_mov_epi32(negative, nibble_mask());
    words_ = _mm512_or_si512(magnitudes, _mm512_slli_epi32(magnitudes, 16));
    const __m512i middle = _mm512_mask_blend_epi32(negative, _mm512_set1_epi32(8), _mm512_set1_epi32(7));
    __m512i bytes = _mm512_sub_epi32(_mm512_set1_epi32(128), _mm512_mullo_epi16(middle, magnitudes));
    if (zeros != nullptr) {
      const __m512i points = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(zeros)));
      bytes = _mm512_sub_epi32(_mm512_add_epi32(bytes, _mm512_set1_epi32(8)), points);
    }
    offset_ = _mm512_shuffle_epi8(
        bytes, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12)));
  }

  __m512i decode_low(__m512i pair) const {
    const __m512i nibbles = _mm512_ternarylogic_epi32(pair, nibble_mask(), turned_, 0x6a);  // (pair & mask) ^ turned
    return _mm512_add_epi8(_mm512_mullo_epi16(nibbles, words_), offset_);
  }
  __m512i decode_high(__m512i pair) const { return decode_low(_mm512_srli_epi16(pair, 4)); }

 private:
  static __m512i nibble_mask() { return _mm512_set1_epi32(0x0f0f0f0f); }

  __m512i turned_, words_, offset_;
};

inline int64_t int4_group_bytes(const PackedLinear& w, int num_tiles) {
  return num_tiles * (512 + kPanel) + w.tail_bytes;
}
inline int64_t int8_group_bytes(int num_tiles) { return num_tiles * 1024 + kPanel * 2; }

// Decodes a group: its tiles, then its scales.
inline void decode_int4_group(const PackedLinear& w, const uint8_t* group, int num_tiles, uint8_t* out) {
  const uint8_t* const scales = group + num_tiles * 512;
  const uint8_t* const zeros = w.format == WeightFormat::int4_zero ? scales + kPanel * 2 : nullptr;
  const uint8_t* multipliers = scales + w.tail_bytes;
  for (int tile = 0; tile < num_tiles; tile++, multipliers += kPanel) {
    const Int4Columns columns[2] = {{multipliers, zeros}, {multipliers + 16, zeros == nullptr ? zeros : zeros + 16}};
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) {
      for (int line = 0; line < 128; line += 64) {
        prefetch(group + kNearAhead + line);
        prefetch_l2(group + kInt4ReadAhead + line);
      }
#pragma GCC unroll 2
      for (int half = 0; half < 2; half++) {
        const __m512i pair = _mm512_loadu_si512(group + half * 64);
        _mm512_storeu_si512(out + half * 64, columns[half].decode_low(pair));
        _mm512_storeu_si512(out + 128 + half * 64, columns[half].decode_high(pair));
      }
      group += 128;
      out += 256;
    }
  }
  std::memcpy(out, scales, kPanel * 2);
}

// Decodes a panel to one of int8.
inline void decode_int4_panel(const PackedLinear& w, const uint8_t* panel, uint8_t* out) {
  for (int c = 0; c < w.num_chunks; c++) {
    for (int left = w.chunks[c].k_len; left > 0; left -= w.group) {
      const int num_tiles = tiles_of_group(left, w.group);
      decode_int4_group(w, panel, num_tiles, out);
      panel += int4_group_bytes(w, num_tiles);
      out += int8_group_bytes(num_tiles);
    }
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
