// A row of quantized activations: for each group of a quantized matrix, a header, then q by tiles of 32 k, zero past
// the last.
#pragma once
#include <cstdint>

#include "core/program/packed_linear.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// As nds::is_int8 and is_quantized, which these files must not call: the linker keeps one copy of each (simd.h).
inline bool is_int8_format(WeightFormat format) {
  return format == WeightFormat::int8 || format == WeightFormat::int8_zero;
}
inline bool is_group_format(WeightFormat format) {
  return is_int8_format(format) || format == WeightFormat::int4 || format == WeightFormat::int4_zero;
}

struct GroupHeader {
  float scale;         // of the activations, / 256, by which the scales of weights are multiplied
  int32_t correction;  // -offset * (sum of q), where weights are stored as q + offset; offset 1 with zero points
};

// Of a group whose tiles have multipliers. The correction is that of integers which are stored as q * multiplier + 128.
struct TileHeader : GroupHeader {
  int32_t corrections[kMaxGroup / kTile];  // of tiles, whose integers are stored as q + 8
};
// Of a group whose tiles are decoded to int8 for AMX, without multipliers.
struct DecodedHeader : GroupHeader {
  int32_t decoded_correction;  // that of integers stored as q + 128
};

// Whether groups fill the steps of AMX, of two tiles.
constexpr bool fills_amx_steps(int group) { return NDS_AMX && group % (2 * kTile) == 0; }
// Whether AMX multiplies int4 decoded to int8.
inline bool decodes_int4(const PackedLinear& w) {
  return is_group_format(w.format) && !is_int8_format(w.format) && fills_amx_steps(w.group);
}
// A cache line before groups that fill steps of AMX, whose rows are loaded more slowly across two lines.
constexpr int header_bytes(bool has_multipliers, int group) {
  if (fills_amx_steps(group)) return 64;
  return static_cast<int>(has_multipliers ? sizeof(TileHeader) : sizeof(GroupHeader));
}
inline int header_bytes(const PackedLinear& w) { return header_bytes(w.has_multipliers, w.group); }

// Tiles of the next group of a chunk of which `left` positions are left.
constexpr int tiles_of_group(int left, int group) { return ((left < group ? left : group) + kTile - 1) / kTile; }

// Without a product of bytes, x86 multiplies 16-bit halves of int8: q of a quad is then stored in 16 bits, in the order
// 0, 2, 1, 3.
#define NDS_INT8_WIDENED ((NDS_AVX2 || NDS_AVX512) && !NDS_VNNI)

// Bytes of a tile of q.
constexpr int kInt8XTile = NDS_INT8_WIDENED ? 2 * kTile : kTile, kInt4XTile = kTile;

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
