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

// The value of largest magnitude, the positive one of two; 0 if there is none. False unless all are finite.
bool find_extreme(const float* values, int count, float* extreme) {
  F32x16 high = zero(), low = zero();
  Mask16 finite = first_n(16);
  for (int i = 0; i < count; i += 16) {
    const F32x16 x = load_n(values + i, lanes(count, i));
    finite = finite & lt(max(x, zero() - x), set1(__builtin_inff()));
    high = max(high, x);
    low = max(low, zero() - x);
  }
  const float most = reduce_max(high), least = -reduce_max(low);
  *extreme = most >= -least ? most : least;
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

// Columns that share what q is relative to: a scale, or a multiplier of it.
template <bool kInt4>
constexpr int kStepRun = kInt4 ? kTile : kMaxGroup;

// The extreme of each run of each row.
template <bool kInt4>
using Extremes = float[kPanel][kMaxGroup / kStepRun<kInt4>];

// scales [32] of fp16(256 * scale), 0 for missing rows.
template <bool kInt4>
bool find_scales(const Group& group, uint16_t* scales, Extremes<kInt4>& extremes) {
  bool fits = true;
  for (int row = 0; row < kPanel; row++) {
    scales[row] = 0;
    if (row >= group.num_rows) continue;
    const float* const w = group.src + row * group.ld;
    float amax = 0;
    for (int k = 0; k < group.num_columns; k += kStepRun<kInt4>) {
      const int left = group.num_columns - k;
      float& extreme = extremes[row][k / kStepRun<kInt4>];
      fits = find_extreme(w + k, left < kStepRun<kInt4> ? left : kStepRun<kInt4>, &extreme) && fits;
      const float magnitude = __builtin_fabsf(extreme);
      if (magnitude > amax) amax = magnitude;
    }
    scales[row] = to_f16(amax / (kInt4 ? 120.0f : 127.0f) * 256.0f);
    fits = fits && scales[row] < 0x7c00;
  }
  return fits;
}

// Of a tile of int4 with that extreme, under the scale that is kept.
int find_multiplier(float extreme, float scale) {
  if (scale == 0) return 1;
  const F32x16 ratio = set1(__builtin_fabsf(extreme) / (8 * scale));
  alignas(64) int32_t nearest[16];
  store_i32(nearest, round_to_i32(max(min(ratio, set1(15)), set1(1))));
  return extreme >= 0 ? -nearest[0] : nearest[0];
}

// q of one row: clamp(round(w / scale)), up to 15 more than count.
void quantize_row(const float* w, int count, float scale, float low, float high, int8_t* q) {
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
  Extremes<kInt4> extremes;
  if (!find_scales<kInt4>(group, stored, extremes)) return nullptr;
  for (int i = 0; i < kPanel; i += 16) store(scales + i, load_f16(stored + i) * set1(0x1p-8f));
  const int num_tiles = (group.num_columns + kTile - 1) / kTile;
  uint8_t* const tail = out + num_tiles * kTileBytes;
  std::memcpy(tail, stored, sizeof(stored));
  int8_t* const multipliers = reinterpret_cast<int8_t*>(tail + sizeof(stored));
  for (int row = 0; row < kPanel; row++) {
    int8_t q[kMaxGroup] = {};
    const float* const w = group.src + row * group.ld;
    for (int k = 0; k < group.num_columns && row < group.num_rows; k += kStepRun<kInt4>) {
      const int left = group.num_columns - k, count = left < kStepRun<kInt4> ? left : kStepRun<kInt4>;
      if (kInt4) {
        const int multiplier = find_multiplier(extremes[row][k / kStepRun<kInt4>], scales[row]);
        multipliers[k / kTile * kPanel + row] = static_cast<int8_t>(multiplier);
        quantize_row(w + k, count, static_cast<float>(multiplier) * scales[row], -8, 7, q + k);
      } else {
        quantize_row(w + k, count, scales[row], -127, 127, q + k);
      }
    }
    for (int tile = 0; tile < num_tiles; tile++) {
      if (kInt4 && row >= group.num_rows) multipliers[tile * kPanel + row] = 1;
      store_tile<kInt4>(q + tile * kTile, row, out + tile * kTileBytes);
    }
  }
  return tail + sizeof(stored) + (kInt4 ? num_tiles * kPanel : 0);
}

template <bool kInt4>
bool pack_panel(const PackArgs& args, int64_t panel) {
  const PackedLinear& w = *args.w;
  const int64_t left = args.num_rows - panel * kPanel;
  Group group{nullptr, args.src_ld, left < kPanel ? static_cast<int>(left) : kPanel, 0};
  const float* const rows = reinterpret_cast<const float*>(args.src) + panel * kPanel * args.src_ld;
  uint8_t* out = w.data + (args.first_panel + panel) * w.panel_bytes;
  for (int c = 0; c < w.num_chunks; c++) {
    const Chunk& chunk = w.chunks[c];
    for (int k = 0; k < chunk.k_len; k += kMaxGroup) {
      group.src = rows + chunk.k_begin + k;
      group.num_columns = chunk.k_len - k < kMaxGroup ? chunk.k_len - k : kMaxGroup;
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
