// Quantizes row-major fp32 weights and packs them into panels, group by group.
#include <cstdint>
#include <cstring>

#include "cpu/kernels/activation.h"
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

// One group of a panel: its source rows, from its first column on.
struct Group {
  const float* src;
  int64_t ld;
  int num_rows;     // 1 … 32
  int num_columns;  // 1 … 128
};

// Largest and smallest element of `count`, each 0 if there is none beyond. False unless all are finite.
bool find_extremes(const float* values, int count, float* most, float* least) {
  F32x16 high = zero(), low = zero();
  Mask16 finite = first_n(16);
  for (int i = 0; i < count; i += 16) {
    const F32x16 x = load_n(values + i, lanes(count, i));
    finite = finite & lt(max(x, zero() - x), set1(__builtin_inff()));
    high = max(high, x);
    low = max(low, zero() - x);
  }
  *most = reduce_max(high);
  *least = -reduce_max(low);
  return bits(finite) == 0xffff;
}

// fp16 bits, to nearest, ties to even; infinity from 65520 on. value is not a NaN.
uint16_t to_f16(float value) {
  uint32_t wide;
  std::memcpy(&wide, &value, 4);
  const uint32_t sign = wide >> 16 & 0x8000, magnitude = wide & 0x7fffffff;
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
  if (magnitude >= 0x38800000) {
    return static_cast<uint16_t>(sign | ((magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000) >> 13));
  }
  // A denormal is a multiple of 2^-24, the last place of 0.5.
  float half;
  std::memcpy(&half, &magnitude, 4);
  half += 0.5f;
  std::memcpy(&wide, &half, 4);
  return static_cast<uint16_t>(sign | (wide - 0x3f000000));
}

// scales [32] of fp16(256 * scale), 0 for missing rows.
template <bool kInt4>
bool find_scales(const Group& group, uint16_t* scales) {
  bool fits = true;
  for (int row = 0; row < kPanel; row++) {
    scales[row] = 0;
    if (row >= group.num_rows) continue;
    float most, least;
    fits = find_extremes(group.src + row * group.ld, group.num_columns, &most, &least) && fits;
    const bool is_positive = most >= -least;
    const float scale = kInt4 ? (is_positive ? most : least) / -8.0f : (is_positive ? most : -least) / 127.0f;
    const uint16_t bits = to_f16(scale * 256.0f);
    fits = fits && (bits & 0x7fff) < 0x7c00;
    scales[row] = (bits & 0x7fff) == 0 ? 0 : bits;
  }
  return fits;
}

// q [128] of one row: clamp(round(w / scale)), then 0 up to whole tiles.
void quantize_row(const float* w, int count, float scale, float low, float high, int8_t* q) {
  std::memset(q, 0, kInt8Group);
  if (scale == 0) return;
  for (int i = 0; i < count; i += 16) {
    const F32x16 ratio = load_n(w + i, lanes(count, i)) / set1(scale);
    store_i8(q + i, round_to_i32(max(min(ratio, set1(high)), set1(low))));
  }
}

// Stores a row's tile: int8 as q + 128, int4 as q + 8, two quads to four bytes.
template <bool kInt4>
void store_tile(const int8_t* q, int row, uint8_t* tile) {
  uint32_t quads[8];
  std::memcpy(quads, q, kTile);
  if (kInt4) {
    for (int p = 0; p < 4; p++) {
      const uint32_t low = quads[2 * p] & 0x0f0f0f0f, high = quads[2 * p + 1] & 0x0f0f0f0f;
      const uint32_t pair = (low | high << 4) ^ 0x88888888;
      std::memcpy(tile + p * 128 + row * 4, &pair, 4);
    }
  } else {
    for (int p = 0; p < 8; p++) {
      const uint32_t quad = quads[p] ^ 0x80808080;
      std::memcpy(tile + p * 128 + row * 4, &quad, 4);
    }
  }
}

// Packs one group at `out`; returns its end, or null if a weight does not fit.
template <bool kInt4>
uint8_t* pack_group(const Group& group, uint8_t* out) {
  constexpr int kTileBytes = kInt4 ? 512 : 1024;
  alignas(64) uint16_t stored[kPanel];
  alignas(64) float scales[kPanel];
  if (!find_scales<kInt4>(group, stored)) return nullptr;
  for (int i = 0; i < kPanel; i += 16) store(scales + i, load_f16(stored + i) * set1(0x1p-8f));
  const int num_tiles = (group.num_columns + kTile - 1) / kTile;
  for (int row = 0; row < kPanel; row++) {
    int8_t q[kInt8Group] = {};
    if (row < group.num_rows) {
      quantize_row(group.src + row * group.ld, group.num_columns, scales[row], kInt4 ? -8 : -127, kInt4 ? 7 : 127, q);
    }
    for (int tile = 0; tile < num_tiles; tile++) store_tile<kInt4>(q + tile * kTile, row, out + tile * kTileBytes);
  }
  std::memcpy(out + num_tiles * kTileBytes, stored, sizeof(stored));
  return out + num_tiles * kTileBytes + sizeof(stored);
}

template <bool kInt4>
bool pack_panel(const PackArgs& args, int64_t panel) {
  constexpr int kGroup = kInt4 ? kInt4Group : kInt8Group;
  const PackedLinear& w = *args.w;
  const int64_t left = args.num_rows - panel * kPanel;
  Group group{nullptr, args.src_ld, left < kPanel ? static_cast<int>(left) : kPanel, 0};
  const float* const rows = reinterpret_cast<const float*>(args.src) + panel * kPanel * args.src_ld;
  uint8_t* out = w.data + (args.first_panel + panel) * w.panel_bytes;
  for (int c = 0; c < w.num_chunks; c++) {
    const Chunk& chunk = w.chunks[c];
    for (int k = 0; k < chunk.k_len; k += kGroup) {
      group.src = rows + chunk.k_begin + k;
      group.num_columns = chunk.k_len - k < kGroup ? chunk.k_len - k : kGroup;
      out = pack_group<kInt4>(group, out);
      if (out == nullptr) return false;
    }
  }
  return true;
}

}  // namespace

bool pack_quantized(const PackArgs& args, int tid, int num_threads) {
  const int64_t num_panels = (args.num_rows + kPanel - 1) / kPanel;
  bool fits = true;
  for (int64_t p = num_panels * tid / num_threads; p < num_panels * (tid + 1) / num_threads; p++) {
    fits = (args.w->format == WeightFormat::int4 ? pack_panel<true>(args, p) : pack_panel<false>(args, p)) && fits;
  }
  return fits;
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
