// Sums of int8 chunks on AMX, for many rows: the bits of linear_groups.h.
#pragma once
#include <cstdint>
#include <cstring>

#include "cpu/kernels/linear_amx.h"
#include "cpu/kernels/quantized_row.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Adds two tiles of k, 64 in all, to the dots of B blocks of 16 rows.
template <int B>
inline void amx_step_int8(const uint8_t* w, const uint8_t* q, int64_t ldx) {
  amx_load<kAmxA>(q, ldx);
  if constexpr (B == 2) amx_load<kAmxA + 1>(q + kAmxRows * ldx, ldx);
  amx_load<kAmxB>(w, 128);
  amx_multiply_int8<0, kAmxA, kAmxB>();
  if constexpr (B == 2) amx_multiply_int8<2, kAmxA + 1, kAmxB>();
  amx_load<kAmxB + 1>(w + 64, 128);
  amx_multiply_int8<1, kAmxA, kAmxB + 1>();
  if constexpr (B == 2) amx_multiply_int8<3, kAmxA + 1, kAmxB + 1>();
}

// Adds the last tile of an odd number, padded with zeros: what follows are scales and a header.
template <int B>
void amx_odd_tile(const TileArgs& args, const uint8_t* w, const uint8_t* q) {
  alignas(64) uint8_t padded_q[kAmxBlock * 64], padded_w[2048];
  for (int r = 0; r < args.rows; r++) {
    std::memcpy(padded_q + r * 64, q + r * args.ldx, kTile);
    std::memset(padded_q + r * 64 + kTile, 0, kTile);
  }
  std::memcpy(padded_w, w, 1024);
  std::memset(padded_w + 1024, 0, 1024);
  amx_step_int8<B>(padded_w, padded_q, 64);
}

struct AmxInt8Chunks {
  template <int B>
  static void sum(const TileArgs& args, const Chunk& chunk, Cursor& cursor, AmxSums& sums) {
    for (int r = 0; r < args.rows; r++) {
      for (int column = 0; column < kPanel; column += 16) store(&sums[r][column], zero());
    }
    alignas(64) int32_t dots[kAmxBlock][kPanel];
    const uint8_t* w = args.panel + chunk.offset;
    for (int left = chunk.k_len; left > 0; left -= kInt8Group) {
      const int num_tiles = ((left < kInt8Group ? left : kInt8Group) + kTile - 1) / kTile;
      const uint8_t* q = cursor.x + sizeof(GroupHeader);
      amx_zero_sums<B>();
      for (int tile = 0; tile < num_tiles; tile += 2) {
        prefetch_run(cursor.ahead, (num_tiles - tile > 1 ? 2 : 1) * args.prefetch_step);
        if (num_tiles - tile > 1) {
          amx_step_int8<B>(w + tile * 1024, q + tile * kTile, args.ldx);
        } else {
          amx_odd_tile<B>(args, w + tile * 1024, q + tile * kTile);
        }
      }
      amx_store_sums<B>(dots, kPanel * 4);
      w += num_tiles * 1024;
      add_group(args, cursor.x, reinterpret_cast<const uint16_t*>(w), dots, sums);
      w += kPanel * 2;
      cursor.x += static_cast<int>(sizeof(GroupHeader)) + num_tiles * kTile;
    }
  }

 private:
  static void add_group(const TileArgs& args, const uint8_t* header, const uint16_t* scales,
                        const int32_t (&dots)[kAmxBlock][kPanel], AmxSums& sums) {
    const F32x16 w_scale[2] = {load_f16(scales), load_f16(scales + 16)};
    for (int r = 0; r < args.rows; r++) {
      const F32x16 x_scale = as_f32(set1_i32(read_i32(header + r * args.ldx)));
      const I32x16 correction = set1_i32(read_i32(header + r * args.ldx + 4));
      for (int half = 0; half < 2; half++) {
        float* const sum = &sums[r][half * 16];
        const F32x16 dot = to_f32(load_i32(&dots[r][half * 16]) + correction);
        store(sum, fma(dot, x_scale * w_scale[half], load(sum)));
      }
    }
  }
};

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
