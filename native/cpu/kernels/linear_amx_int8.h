// Sums on AMX of int8 chunks, and of int4 ones that are decoded, for many rows: the bits of linear_groups.h.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/kernels/linear_amx.h"
#include "cpu/kernels/linear_amx_int4.h"
#include "cpu/kernels/quantized_row.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// The last tile of an odd number, padded with zeros: what follows are scales and a header.
struct AmxOddTile {
  alignas(64) uint8_t x[kAmxBlock * 64], w[2048];
  AmxOddTile(const TileArgs& args, const uint8_t* from_w, const uint8_t* from_x) {
    for (int r = 0; r < args.rows; r++) {
      std::memcpy(x + r * 64, from_x + r * args.ldx, kTile);
      std::memset(x + r * 64 + kTile, 0, kTile);
    }
    std::memcpy(w, from_w, 1024);
    std::memset(w + 1024, 0, 1024);
  }
};

// A group's dots stay in registers until the next group needs these, and become part of their chunk's sums while the
// tiles multiply that. kDecodes: args.codes is a panel of int4, whose groups are decoded one by one; otherwise
// args.panel is one of int8, perhaps decoded.
template <int B, bool kDecodes>
class AmxInt8Tile {
 public:
  explicit AmxInt8Tile(const TileArgs& args) : args_(args), stack_(args), ahead_(args.prefetch) {}

  void run() {
    const PackedLinear& w = *args_.w;
    const int header_size = header_bytes(w);
    const uint8_t *header = args_.x, *group = kDecodes ? args_.codes : args_.panel;
    for (int c = 0; c < w.num_chunks; c++) {
      if (w.chunks[c].k_len == 0) add_empty_chunk(c);
      for (int left = w.chunks[c].k_len; left > 0; left -= w.group) {
        const int num_tiles = tiles_of_group(left, w.group);
        const uint8_t* const tiles = kDecodes ? decode(group, num_tiles) : group;
        group += kDecodes ? int4_group_bytes(w, num_tiles) : int8_group_bytes(num_tiles);
        multiply(tiles, header + header_size, num_tiles);
        if (waiting_.header != nullptr) add_dots();
        const uint8_t* const scales = tiles + num_tiles * 1024;
        waiting_ = {header, reinterpret_cast<const uint16_t*>(scales), left == w.chunks[c].k_len,
                    left <= w.group ? c : kNoChunk};
        header += header_size + num_tiles * kTile;
      }
    }
    flush();
  }

 private:
  static constexpr int kNoChunk = -1;

  // A group whose dots are in registers or in dots_.
  struct Group {
    const uint8_t* header = nullptr;  // of the first row; null: no group
    const uint16_t* scales;
    bool is_first;  // of its chunk
    int ends;       // the chunk whose last group it is
  };

  // In the buffer that the group before does not use.
  const uint8_t* decode(const uint8_t* group, int num_tiles) {
    last_ ^= 1;
    decode_int4_group(*args_.w, group, num_tiles, decoded_[last_]);
    return decoded_[last_];
  }

  // Leaves the dots in registers, whose content it stores in dots_ where a group waits.
  void multiply(const uint8_t* w, const uint8_t* q, int num_tiles) {
    void* const before = waiting_.header == nullptr ? nullptr : dots_;
    for (int tile = 0; tile < num_tiles; tile += 2) {
      const bool is_whole = num_tiles - tile > 1;
      prefetch_weights(w + tile * 1024, (is_whole ? 2 : 1) * args_.prefetch_step);
      if (is_whole) {
        step(tile == 0, w + tile * 1024, q + tile * kTile, args_.ldx, before);
      } else {
        const AmxOddTile last(args_, w + tile * 1024, q + tile * kTile);
        step(tile == 0, last.w, last.x, 64, before);
      }
    }
  }

  // What is read soon, from L2, and what the cursor says, from memory.
  void prefetch_weights(const uint8_t* w, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) {
      prefetch(w + kNearAhead + i);
      prefetch_l2(ahead_ + i);
    }
    ahead_ += bytes;
  }

  static void step(bool is_first, const uint8_t* w, const uint8_t* x, int64_t ldx, void* before) {
    if (is_first) {
      amx_first_step<AmxInt8, B>(w, x, ldx, before);
    } else {
      amx_step<AmxInt8, B>(w, x, ldx);
    }
  }

  // Adds the dots of the group that waits from dots_.
  void add_dots() {
    if (waiting_.is_first) {
      add_dots<true>();
    } else {
      add_dots<false>();
    }
    if (waiting_.ends != kNoChunk) push(waiting_.ends);
    waiting_.header = nullptr;
  }

  // Pointers are kept in variables of its own: the compiler would read them again after each store.
  template <bool kIsFirst>
  void add_dots() {
    const int rows = args_.rows;
    const int64_t ldx = args_.ldx;
    const uint8_t* header = waiting_.header;
    const int32_t* dots = dots_[0];
    float* sums = stack_.next()[0];
    const F32x16 w_scale[2] = {load_f16(waiting_.scales), load_f16(waiting_.scales + 16)};
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) {
      const F32x16 x_scale = as_f32(set1_i32(read_i32(header)));
      const I32x16 correction = set1_i32(read_i32(header + correction_at_));
#pragma GCC unroll 2
      for (int half = 0; half < 2; half++) {
        float* const sum = sums + half * 16;
        const F32x16 dot = to_f32(load_i32(dots + half * 16) + correction);
        store(sum, fma(dot, x_scale * w_scale[half], kIsFirst ? zero() : load(sum)));
      }
      header += ldx;
      dots += kPanel;
      sums += kPanel;
    }
  }

  void flush() {
    if (waiting_.header == nullptr) return;
    amx_store_sums<B>(dots_, kPanel * 4);
    add_dots();
  }

  void add_empty_chunk(int chunk) {
    flush();
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
  const int64_t correction_at_ = decodes_int4(*args_.w) && !args_.w->has_multipliers
                                     ? sizeof(GroupHeader)
                                     : offsetof(GroupHeader, correction);  // in a header
  Group waiting_;
  int last_ = 0;
  alignas(64) int32_t dots_[kAmxBlock][kPanel];
  alignas(64) uint8_t decoded_[kDecodes ? 2 : 1][kDecodes ? kMaxGroup / kTile * 1024 + kPanel * 2 : 1];
};

template <int B>
void linear_amx_int8(const TileArgs& args) {
  args.amx->set(args.rows);
  AmxInt8Tile<B, false>(args).run();
}

template <int B>
void linear_amx_int4(const TileArgs& args) {
  args.amx->set(args.rows);
  if (args.codes == nullptr) return AmxInt8Tile<B, false>(args).run();
  AmxInt8Tile<B, true>(args).run();
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
