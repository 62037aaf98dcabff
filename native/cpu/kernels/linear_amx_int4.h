// Groups of int4 that fill steps of AMX, decoded to the layout of int8 for linear_amx_int8.h.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "cpu/kernels/linear_rows.h"
#include "cpu/kernels/quantized_row.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Prefetch distance from memory to L2, bytes.
constexpr int64_t kInt4ReadAhead = 4096;

inline __m512i nibble_mask() { return _mm512_set1_epi32(0x0f0f0f0f); }
// The low byte of each lane in all four.
inline __m512i repeat_bytes(__m512i lanes) {
  return _mm512_shuffle_epi8(lanes,
                             _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12)));
}

// Of 16 columns: q * multiplier + 128 from nibbles, by bytes.
class MultipliedColumns {
 public:
  explicit MultipliedColumns(const uint8_t* multipliers) {
    const __m512i signed_dwords = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(multipliers)));
    const __m512i magnitudes = _mm512_abs_epi32(signed_dwords);
    const __mmask16 negative = _mm512_movepi32_mask(signed_dwords);
    // With a negative multiplier, nibbles c become 15 - c, and c - 8 times the multiplier is (15 - c) - 7 times its
    // magnitude: products of bytes are never negative and do not borrow from each other.
    turned_ = _mm512_maskz_mov_epi32(negative, nibble_mask());
    words_ = _mm512_or_si512(magnitudes, _mm512_slli_epi32(magnitudes, 16));
    const __m512i middle = _mm512_mask_blend_epi32(negative, _mm512_set1_epi32(8), _mm512_set1_epi32(7));
    offset_ = repeat_bytes(_mm512_sub_epi32(_mm512_set1_epi32(128), _mm512_mullo_epi16(middle, magnitudes)));
  }

  // Of the low nibbles.
  __m512i decode(__m512i pair) const {
    const __m512i nibbles = _mm512_ternarylogic_epi32(pair, nibble_mask(), turned_, 0x6a);  // (pair & mask) ^ turned
    return _mm512_add_epi8(_mm512_mullo_epi16(nibbles, words_), offset_);
  }

 private:
  __m512i turned_, words_, offset_;
};

// The same of q that a checkpoint stores. zeros: null or [16] zero points.
class StoredColumns {
 public:
  explicit StoredColumns(const uint8_t* zeros) : offset_(_mm512_set1_epi8(128 - 8)) {
    if (zeros == nullptr) return;
    const __m512i points = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(zeros)));
    offset_ = repeat_bytes(_mm512_sub_epi32(_mm512_set1_epi32(128), points));
  }

  __m512i decode(__m512i pair) const { return _mm512_add_epi8(_mm512_and_si512(pair, nibble_mask()), offset_); }

 private:
  __m512i offset_;
};

inline int64_t int4_group_bytes(const PackedLinear& w, int num_tiles) {
  return num_tiles * (w.has_multipliers ? 512 + kPanel : 512) + w.tail_bytes;
}
inline int64_t int8_group_bytes(int num_tiles) { return num_tiles * 1024 + kPanel * 2; }

template <typename Columns>
[[gnu::always_inline]] inline void decode_int4_tile(const uint8_t* tile, const Columns (&columns)[2], uint8_t* out) {
#pragma GCC unroll 4
  for (int p = 0; p < 4; p++) {
    for (int line = 0; line < 128; line += 64) {
      prefetch(tile + kNearAhead + line);
      prefetch_l2(tile + kInt4ReadAhead + line);
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      const __m512i pair = _mm512_loadu_si512(tile + half * 64);
      _mm512_storeu_si512(out + half * 64, columns[half].decode(pair));
      _mm512_storeu_si512(out + 128 + half * 64, columns[half].decode(_mm512_srli_epi16(pair, 4)));
    }
    tile += 128;
    out += 256;
  }
}

// Decodes a group: its tiles, then its scales.
inline void decode_int4_group(const PackedLinear& w, const uint8_t* group, int num_tiles, uint8_t* out) {
  const uint8_t* const scales = group + num_tiles * 512;
  const uint8_t* const tail = scales + kPanel * 2;  // multipliers or zero points
  if (w.has_multipliers) {
    for (int tile = 0; tile < num_tiles; tile++) {
      const uint8_t* const multipliers = tail + tile * kPanel;
      const MultipliedColumns columns[2] = {MultipliedColumns(multipliers), MultipliedColumns(multipliers + 16)};
      decode_int4_tile(group + tile * 512, columns, out + tile * 1024);
    }
  } else {
    const bool has_zeros = w.format == WeightFormat::int4_zero;
    const StoredColumns columns[2] = {StoredColumns(has_zeros ? tail : nullptr),
                                      StoredColumns(has_zeros ? tail + 16 : nullptr)};
    for (int tile = 0; tile < num_tiles; tile++) decode_int4_tile(group + tile * 512, columns, out + tile * 1024);
  }
  std::memcpy(out + num_tiles * 1024, scales, kPanel * 2);
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
