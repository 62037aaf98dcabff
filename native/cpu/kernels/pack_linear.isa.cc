// Packs row-major weights into panels: a transpose of 32 rows at a time, chunk by chunk.
#include <cstdint>
#include <cstring>

#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/quantized_row.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

// A block of the transpose: 32 rows of 16 dwords in, 16 k-steps of 32 dwords out.
constexpr int kWords = 16;

// Source rows of one panel, from the first column of a chunk on.
struct Rows {
  const uint8_t* src;
  int64_t stride;  // bytes
  int count;       // 1 … 32
};

#if NDS_AVX2 || NDS_AVX512
// out[k][8 rows] = in[row][k], 8 x 8 dwords; rows at src_stride, k-steps at out_stride bytes.
inline void transpose8(const uint8_t* src, int64_t src_stride, uint8_t* out, int64_t out_stride) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; i++) a[i] = _mm256_loadu_ps(reinterpret_cast<const float*>(src + i * src_stride));
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
    a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++) {
    _mm256_storeu_ps(reinterpret_cast<float*>(out + i * out_stride), _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
    _mm256_storeu_ps(reinterpret_cast<float*>(out + (i + 4) * out_stride),
                     _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
  }
}

inline void transpose_block(const uint8_t* src, int64_t stride, uint8_t* out) {
  for (int row = 0; row < kPanel; row += 8) {
    for (int word = 0; word < kWords; word += 8) {
      transpose8(src + row * stride + word * 4, stride, out + word * 128 + row * 4, 128);
    }
  }
}
#elif NDS_NEON
// out[k][4 rows] = in[row][k], 4 x 4 dwords; rows at src_stride, k-steps at out_stride bytes.
inline void transpose4(const uint8_t* src, int64_t src_stride, uint8_t* out, int64_t out_stride) {
  float64x2_t pairs[4];  // [0] and [1]: even and odd words of rows 0 and 1, alternating; [2] and [3]: of rows 2 and 3
  for (int i = 0; i < 4; i += 2) {
    const float32x4_t a = vld1q_f32(reinterpret_cast<const float*>(src + i * src_stride));
    const float32x4_t b = vld1q_f32(reinterpret_cast<const float*>(src + (i + 1) * src_stride));
    pairs[i] = vreinterpretq_f64_f32(vtrn1q_f32(a, b));
    pairs[i + 1] = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
  }
  for (int i = 0; i < 2; i++) {
    vst1q_f64(reinterpret_cast<double*>(out + i * out_stride), vtrn1q_f64(pairs[i], pairs[i + 2]));
    vst1q_f64(reinterpret_cast<double*>(out + (i + 2) * out_stride), vtrn2q_f64(pairs[i], pairs[i + 2]));
  }
}

inline void transpose_block(const uint8_t* src, int64_t stride, uint8_t* out) {
  for (int row = 0; row < kPanel; row += 4) {
    for (int word = 0; word < kWords; word += 4) {
      transpose4(src + row * stride + word * 4, stride, out + word * 128 + row * 4, 128);
    }
  }
}
#else
inline void transpose_block(const uint8_t* src, int64_t stride, uint8_t* out) {
  for (int word = 0; word < kWords; word++) {
    for (int row = 0; row < kPanel; row++) std::memcpy(out + word * 128 + row * 4, src + row * stride + word * 4, 4);
  }
}
#endif

// transpose_block of num_bytes (max 64) of each row, with zeros for missing rows and bytes.
void transpose_edge(const Rows& rows, int64_t offset, int num_bytes, uint8_t* out) {
  alignas(64) uint8_t padded[kPanel * kWords * 4] = {};
  for (int row = 0; row < rows.count; row++) {
    std::memcpy(padded + row * kWords * 4, rows.src + row * rows.stride + offset, static_cast<size_t>(num_bytes));
  }
  transpose_block(padded, kWords * 4, out);
}

// fp16 pairs [ceil(num_k / 2)][32][2] to out [num_k][32].
void split_pairs(const uint8_t* pairs, int num_k, uint8_t* out) {
  for (int k = 0; k < num_k; k++) {
    for (int column = 0; column < kPanel; column++) {
      std::memcpy(out + k * 64 + column * 2, pairs + k / 2 * 128 + column * 4 + k % 2 * 2, 2);
    }
  }
}

// Packs one chunk. A row's num_bytes are words of 4 bytes: two k of bf16 or fp16, one k of fp32.
void pack_chunk(const Rows& rows, int64_t num_bytes, WeightFormat format, uint8_t* out) {
  alignas(64) uint8_t block[kWords * 128];
  for (int64_t offset = 0; offset < num_bytes; offset += kWords * 4) {
    const int64_t left = num_bytes - offset;
    const int size = left < kWords * 4 ? static_cast<int>(left) : kWords * 4;
    const bool whole = size == kWords * 4 && rows.count == kPanel;
    uint8_t* to = whole && format != WeightFormat::f16 ? out + offset * kPanel : block;
    if (whole) {
      for (int row = 0; row < kPanel; row++) prefetch(rows.src + row * rows.stride + offset + 256);
      transpose_block(rows.src + offset, rows.stride, to);
    } else {
      transpose_edge(rows, offset, size, to);
    }
    if (format == WeightFormat::f16) {
      split_pairs(block, size / 2, out + offset * kPanel);
    } else if (!whole) {
      std::memcpy(out + offset * kPanel, block, static_cast<size_t>((size + 3) / 4) * 128);
    }
  }
}

}  // namespace

bool pack_linear(const PackArgs& args, int tid, int num_threads) {
  const PackedLinear& w = *args.w;
  if (is_group_format(w.format)) return pack_quantized(args, tid, num_threads);
  const int64_t size = w.format == WeightFormat::f32 ? 4 : 2;
  const int64_t num_panels = (args.num_rows + kPanel - 1) / kPanel;
  for (int64_t p = num_panels * tid / num_threads; p < num_panels * (tid + 1) / num_threads; p++) {
    uint8_t* panel = w.data + (args.first_panel + p) * w.panel_bytes;
    const int64_t left = args.num_rows - p * kPanel;
    const int count = left < kPanel ? static_cast<int>(left) : kPanel;
    for (int c = 0; c < w.num_chunks; c++) {
      const Chunk& chunk = w.chunks[c];
      const Rows rows{args.src + (p * kPanel * args.src_ld + chunk.k_begin) * size, args.src_ld * size, count};
      pack_chunk(rows, chunk.k_len * size, w.format, panel + chunk.offset);
    }
  }
  return true;
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
