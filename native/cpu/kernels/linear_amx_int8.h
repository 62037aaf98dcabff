// Sums of int8 chunks on AMX, for many rows: the bits of linear_groups.h.
#pragma once
#include <cstdint>
#include <cstring>

#include "cpu/kernels/linear_amx.h"
#include "cpu/kernels/quantized_row.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

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
  amx_step<AmxInt8, B>(padded_w, padded_q, 64);
}

// A group's dots become part of its chunk's sums while the tiles multiply the next group.
template <int B>
class AmxInt8Tile {
 public:
  explicit AmxInt8Tile(const TileArgs& args) : args_(args), stack_(args), ahead_(args.prefetch) {}

  void run() {
    const PackedLinear& w = *args_.w;
    const uint8_t* header = args_.x;
    for (int c = 0; c < w.num_chunks; c++) {
      const uint8_t* tiles = args_.panel + w.chunks[c].offset;
      if (w.chunks[c].k_len == 0) add_empty_chunk(c);
      for (int left = w.chunks[c].k_len; left > 0; left -= kInt8Group) {
        const int num_tiles = ((left < kInt8Group ? left : kInt8Group) + kTile - 1) / kTile;
        multiply(tiles, header + sizeof(GroupHeader), num_tiles);
        add_dots();
        amx_store_sums<B>(dots_, kPanel * 4);
        const uint8_t* const scales = tiles + num_tiles * 1024;
        waiting_ = {header, reinterpret_cast<const uint16_t*>(scales), left == w.chunks[c].k_len,
                    left <= kInt8Group ? c : kNoChunk};
        tiles = scales + kPanel * 2;
        header += static_cast<int>(sizeof(GroupHeader)) + num_tiles * kTile;
      }
    }
    add_dots();
  }

 private:
  static constexpr int kNoChunk = -1;

  // A group whose dots are in dots_.
  struct Group {
    const uint8_t* header = nullptr;  // of the first row; null: no group
    const uint16_t* scales;
    bool is_first;  // of its chunk
    int ends;       // the chunk whose last group it is
  };

  void multiply(const uint8_t* w, const uint8_t* q, int num_tiles) {
    amx_zero_sums<B>();
    for (int tile = 0; tile < num_tiles; tile += 2) {
      const bool is_whole = num_tiles - tile > 1;
      prefetch_run(ahead_, (is_whole ? 2 : 1) * args_.prefetch_step);
      if (is_whole) {
        amx_step<AmxInt8, B>(w + tile * 1024, q + tile * kTile, args_.ldx);
      } else {
        amx_odd_tile<B>(args_, w + tile * 1024, q + tile * kTile);
      }
    }
  }

  void add_dots() {
    if (waiting_.header == nullptr) return;
    float* const sums = stack_.next()[0];
    const F32x16 w_scale[2] = {load_f16(waiting_.scales), load_f16(waiting_.scales + 16)};
    for (int r = 0; r < args_.rows; r++) {
      const uint8_t* const header = waiting_.header + r * args_.ldx;
      const F32x16 x_scale = as_f32(set1_i32(read_i32(header)));
      const I32x16 correction = set1_i32(read_i32(header + 4));
      for (int half = 0; half < 2; half++) {
        float* const sum = sums + r * kPanel + half * 16;
        const F32x16 dot = to_f32(load_i32(&dots_[r][half * 16]) + correction);
        store(sum, fma(dot, x_scale * w_scale[half], waiting_.is_first ? zero() : load(sum)));
      }
    }
    if (waiting_.ends != kNoChunk) push(waiting_.ends);
    waiting_.header = nullptr;
  }

  void add_empty_chunk(int chunk) {
    add_dots();
    std::memset(stack_.next(), 0, sizeof(AmxSums));
    push(chunk);
  }

  void push(int chunk) {
    if (chunk + 1 < args_.w->num_chunks) {
      stack_.push(args_.w->merges[chunk]);
    } else {
      stack_.push_last(args_.w->merges[chunk]);
    }
  }

  const TileArgs& args_;
  AmxStack stack_;
  const uint8_t* ahead_;  // next address prefetched
  Group waiting_;
  alignas(64) int32_t dots_[kAmxBlock][kPanel];
};

template <int B>
void linear_amx_int8(const TileArgs& args) {
  args.amx->set(args.rows);
  AmxInt8Tile<B>(args).run();
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
