// Quantizes activations by the groups of a matrix.
#include <cstdint>
#include <cstring>

#include "core/program/packed_linear.h"
#include "cpu/kernels/activation.h"
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/linear_rows.h"
#include "cpu/kernels/quantized_row.h"
#include "cpu/kernels/share.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

template <DType kDtype>
F32x16 load_activation(const uint8_t* x, int column) {
  if (kDtype == DType::bf16) return load_bf16(reinterpret_cast<const uint16_t*>(x) + column);
  return load(reinterpret_cast<const float*>(x) + column);
}

template <DType kDtype>
F32x16 load_activation_n(const uint8_t* x, int column, int n) {
  if (kDtype == DType::bf16) return load_bf16_n(reinterpret_cast<const uint16_t*>(x) + column, n);
  return load_n(reinterpret_cast<const float*>(x) + column, n);
}

// Positions of k that share a scale, and the columns at them: columns[first + i], or first + i if columns is null.
struct Positions {
  const int32_t* columns;
  int first;
  int count;  // 1 … 128
};

// n (1 … 16) activations from position i of the group on.
template <DType kDtype>
F32x16 load_positions(const uint8_t* x, const Positions& group, int i, int n) {
  if (group.columns == nullptr) return load_activation_n<kDtype>(x, group.first + i, n);
  float values[16] = {};
  for (int j = 0; j < n; j++) {
    const int32_t column = group.columns[group.first + i + j];
    if (column < 0) continue;
    const uint32_t bits = kDtype == DType::bf16 ? uint32_t{read_u16(x + column * 2)} << 16
                                                : static_cast<uint32_t>(read_i32(x + column * 4));
    std::memcpy(values + j, &bits, 4);
  }
  return load(values);
}

// Bytes of 16 values of q. Those of int4 are never widened.
template <bool kInt8>
constexpr int kStep = (kInt8 ? kInt8XTile : kInt4XTile) / 2;

template <bool kInt8>
void store_q(uint8_t* q, I32x16 values) {
#if NDS_INT8_WIDENED
  if (kInt8) return store_i16_swapped(reinterpret_cast<int16_t*>(q), values);
#endif
  store_i8(reinterpret_cast<int8_t*>(q), values);
}

// Quantizes the values of a group, 0 past its end, into q; sums: of q in each tile. Inlined, as num_vectors of a whole
// group is a constant. Returns the scale.
template <bool kInt8>
[[gnu::always_inline]] inline float quantize_vectors(const F32x16* values, int num_vectors, uint8_t* q, I32x16* sums) {
  F32x16 most = zero();
  Mask16 finite = first_n(16);
  for (int i = 0; i < num_vectors; i++) {
    const F32x16 magnitude = max(values[i], zero() - values[i]);
    finite = finite & lt(magnitude, set1(__builtin_inff()));
    most = max(most, magnitude);
  }
  const bool is_finite = bits(finite) == 0xffff;
  const float amax = reduce_max(most);
  if (!is_finite || amax < 0x1p-100f) {
    std::memset(q, 0, static_cast<size_t>(num_vectors * kStep<kInt8>));
    for (int i = 0; i < num_vectors; i += 2) sums[i / 2] = set1_i32(0);
    return is_finite ? 0 : __builtin_nanf("");
  }
  const F32x16 factor = set1(127.0f / amax);
  for (int i = 0; i < num_vectors; i += 2) {
    const I32x16 low = round_to_i32(values[i] * factor), high = round_to_i32(values[i + 1] * factor);
    store_q<kInt8>(q + i * kStep<kInt8>, low);
    store_q<kInt8>(q + (i + 1) * kStep<kInt8>, high);
    sums[i / 2] = low + high;
  }
  return amax / 127.0f * 0x1p-8f;
}

// What the integers of a group's weights are stored plus; those of its tiles with multipliers, else 0; and the bytes
// before its q.
struct Offsets {
  int group, tile, header;
};

inline int32_t sum_of(I32x16 lanes) { return static_cast<int32_t>(reduce_add(to_f32(lanes))); }

// Writes a group, header first, at `out`. Inlined as quantize_vectors.
template <bool kInt8>
[[gnu::always_inline]] inline void write_group(const F32x16* values, int num_vectors, Offsets offsets, uint8_t* out) {
  I32x16 sums[kMaxGroup / kTile];
  if (offsets.tile == 0) {
    const float scale = quantize_vectors<kInt8>(values, num_vectors, out + offsets.header, sums);
    I32x16 sum = sums[0];
    for (int i = 1; i < num_vectors / 2; i++) sum = sum + sums[i];
    const int32_t of_group = sum_of(sum);
    const DecodedHeader header{{scale, -offsets.group * of_group}, -128 * of_group};
    // Only a header of a whole cache line has room for both corrections.
    const bool has_room = offsets.header >= static_cast<int>(sizeof(header));
    std::memcpy(out, &header, has_room ? sizeof(header) : sizeof(GroupHeader));
    return;
  }
  TileHeader header = {};
  header.scale = quantize_vectors<kInt8>(values, num_vectors, out + offsets.header, sums);
  int32_t sum = 0;
  for (int i = 0; i < num_vectors / 2; i++) {
    const int32_t of_tile = sum_of(sums[i]);
    header.corrections[i] = -offsets.tile * of_tile;
    sum += of_tile;
  }
  header.correction = -offsets.group * sum;
  std::memcpy(out, &header, sizeof(header));
}

// A group of kCount columns as they lie.
template <DType kDtype, bool kInt8, int kCount>
void quantize_whole(const uint8_t* x, int column, Offsets offsets, uint8_t* out) {
  F32x16 values[kCount / 16];
  for (int i = 0; i < kCount / 16; i++) values[i] = load_activation<kDtype>(x, column + i * 16);
  write_group<kInt8>(values, kCount / 16, offsets, out);
}

template <DType kDtype, bool kInt8>
void quantize_group(const uint8_t* x, const Positions& group, Offsets offsets, uint8_t* out) {
  if (group.columns == nullptr && group.count == kMaxGroup)
    return quantize_whole<kDtype, kInt8, kMaxGroup>(x, group.first, offsets, out);
  if (group.columns == nullptr && group.count == kTile)
    return quantize_whole<kDtype, kInt8, kTile>(x, group.first, offsets, out);
  F32x16 values[kMaxGroup / 16];
  const int num_vectors = (group.count + kTile - 1) / kTile * 2;
  for (int i = 0; i < num_vectors; i++) {
    const int n = group.count - i * 16;
    values[i] = n <= 0 ? zero() : load_positions<kDtype>(x, group, i * 16, n < 16 ? n : 16);
  }
  write_group<kInt8>(values, num_vectors, offsets, out);
}

Offsets offsets_of(const PackedLinear& w) {
  if (w.has_multipliers) return {128, 8, header_bytes(w)};
  return {w.format == WeightFormat::int8 ? 128 : w.format == WeightFormat::int4 ? 8 : 1, 0, header_bytes(w)};
}

template <DType kDtype, bool kInt8>
void quantize_row(const PackedLinear& w, const uint8_t* x, uint8_t* out) {
  const Offsets offsets = offsets_of(w);
  for (int c = 0; c < w.num_chunks; c++) {
    const Chunk& chunk = w.chunks[c];
    for (int k = 0; k < chunk.k_len; k += w.group) {
      const int count = chunk.k_len - k < w.group ? chunk.k_len - k : w.group;
      quantize_group<kDtype, kInt8>(x, {w.columns, chunk.k_begin + k, count}, offsets, out);
      out += offsets.header + (count + kTile - 1) / kTile * 2 * kStep<kInt8>;
    }
  }
}

template <DType kDtype>
void quantize_row(const PackedLinear& w, const uint8_t* x, uint8_t* out) {
  if (is_int8_format(w.format)) {
    quantize_row<kDtype, true>(w, x, out);
  } else {
    quantize_row<kDtype, false>(w, x, out);
  }
}

}  // namespace

// An odd multiple of 64, at which rows do not share cache sets.
int64_t quantized_row_bytes(const PackedLinear& w) {
  const int64_t tile = is_int8_format(w.format) ? kInt8XTile : kInt4XTile;
  const int64_t bytes = w.num_groups * int64_t{header_bytes(w)} + w.num_tiles * tile;
  return ((bytes + 63) / 64 | 1) * 64;
}

void quantize_rows(const QuantizeArgs& args, int tid, int num_threads) {
  const Share rows = share_of(args.rows, tid, num_threads);
  const int64_t row_bytes = quantized_row_bytes(*args.w);
  for (int64_t i = rows.begin; i < rows.end; i++) {
    const uint8_t* const x = static_cast<const uint8_t*>(args.x);
    if (args.x_dtype == DType::bf16) {
      quantize_row<DType::bf16>(*args.w, x + i * args.ldx * 2, args.out + i * row_bytes);
    } else {
      quantize_row<DType::f32>(*args.w, x + i * args.ldx * 4, args.out + i * row_bytes);
    }
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
