// The micro-kernels of linear on AMX: up to 32 rows of x times one panel of W, chunk by chunk.
#pragma once
#include <cstdint>
#include <cstring>

#include "cpu/kernels/amx_block.h"
#include "cpu/kernels/fp8_decode.h"
#include "cpu/kernels/linear_rows.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

constexpr int kAmxBlock = 2 * kAmxRows;  // max rows of a tile of linear
using AmxSums = float[kAmxBlock][kPanel];

// For panels of bf16: they come from far ahead, and rows and the panel in use leave no room for them in L1.
inline void prefetch_run_l2(const uint8_t*& ahead, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) prefetch_l2(ahead + i);
  ahead += bytes;
}

// The first step of a chunk or group. Each tile of the sums before it, if any, [rows][kPanel], is stored just before
// its register is needed, so that the multiplier does not wait for all stores.
template <typename Products, int B>
inline void amx_first_step(const uint8_t* w, const uint8_t* x, int64_t ldx, void* before) {
  amx_load<kAmxA>(x, ldx);
  if constexpr (B == 2) amx_load<kAmxA + 1>(x + kAmxRows * ldx, ldx);
  amx_load<kAmxB>(w, 128);
  amx_load<kAmxB + 1>(w + 64, 128);
  const auto begin = [&]<int kSums>() {
    if (before != nullptr)
      amx_store<kSums>(static_cast<uint8_t*>(before) + (kSums / 2 * kAmxRows * kPanel + kSums % 2 * 16) * 4,
                       kPanel * 4);
    amx_zero<kSums>();
    Products::template multiply<kSums, kAmxA + kSums / 2, kAmxB + kSums % 2>();
  };
  begin.template operator()<0>();
  if constexpr (B == 2) begin.template operator()<2>();
  begin.template operator()<1>();
  if constexpr (B == 2) begin.template operator()<3>();
}

// Up to 31 columns at the end of a chunk, padded with zeros: what follows in x and w belongs to others, and may be
// infinite.
struct AmxRaggedStep {
  alignas(64) uint8_t x[kAmxBlock * kAmxStep * 2], w[kAmxStepBytes];
  AmxRaggedStep(const TileArgs& args, const uint8_t* from_w, const uint8_t* from_x, int num_columns) {
    const auto x_bytes = static_cast<size_t>(num_columns) * 2;
    const auto w_bytes = static_cast<size_t>((num_columns + 1) / 2) * 128;
    std::memset(x, 0, sizeof(x));
    for (int r = 0; r < args.rows; r++) std::memcpy(x + r * kAmxStep * 2, from_x + r * args.ldx, x_bytes);
    std::memcpy(w, from_w, w_bytes);
    std::memset(w + w_bytes, 0, sizeof(w) - w_bytes);
  }
};

struct AmxBf16Chunks {
  // Leaves the sums in registers, whose content it stores at `before`.
  template <int B>
  static void sum(const TileArgs& args, const Chunk& chunk, Cursor& cursor, float* before) {
    const uint8_t *w = args.panel + chunk.offset, *x = args.x + int64_t{chunk.k_begin} * 2;
    const int num_steps = chunk.k_len / kAmxStep, num_left = chunk.k_len % kAmxStep;
    if (num_steps > 0) amx_first_step<AmxBf16, B>(w, x, args.ldx, before);
    for (int step = 1; step < num_steps; step++) {
      prefetch_run_l2(cursor.ahead, args.prefetch_step);
      amx_step<AmxBf16, B>(w + step * kAmxStepBytes, x + step * kAmxStep * 2, args.ldx);
    }
    if (num_steps > 0) prefetch_run_l2(cursor.ahead, args.prefetch_step);
    if (num_steps > 0 && num_left == 0) return;
    const AmxRaggedStep last(args, w + num_steps * kAmxStepBytes, x + num_steps * kAmxStep * 2, num_left);
    if (num_steps == 0) {
      amx_first_step<AmxBf16, B>(last.w, last.x, kAmxStep * 2, before);
    } else {
      amx_step<AmxBf16, B>(last.w, last.x, kAmxStep * 2);
    }
  }
};

// The sums of chunks, joined by w->merges.
class AmxStack {
 public:
  explicit AmxStack(const TileArgs& args) : args_(args) {}
  AmxSums& next() { return stack_[depth_]; }

  // Pushes the sums of a chunk that next() has got.
  void push(int merges) {
    depth_ -= merges;
    if (merges > 0) join(depth_, merges, stack_[depth_][0], kPanel, nullptr);
    depth_++;
  }
  // The same for the last chunk: the sums that remain are stored.
  void push_last(int merges) {
    depth_ -= merges;
    for (int root = 0; root <= depth_; root++)
      join(root, root == depth_ ? merges : 0, args_.y + root * args_.root_stride, args_.ldy, args_.bias);
  }

 private:
  // out = stack_[first] + (… + stack_[first + merges]) + bias.
  void join(int first, int merges, float* out, int64_t ld, const float* bias) const {
    for (int r = 0; r < args_.rows; r++) {
      for (int column = 0; column < kPanel; column += 16) {
        F32x16 sum = load(&stack_[first + merges][r][column]);
        for (int i = merges - 1; i >= 0; i--) sum = load(&stack_[first + i][r][column]) + sum;
        store(out + r * ld + column, bias == nullptr ? sum : sum + load(bias + column));
      }
    }
  }

  const TileArgs& args_;
  int depth_ = 0;
  alignas(64) AmxSums stack_[kMaxDepth];
};

// bf16 weights and activations: args.rows rows in B blocks.
template <int B>
void linear_amx_bf16(const TileArgs& args) {
  args.amx->set(args.rows);
  const PackedLinear& w = *args.w;
  AmxStack stack(args);
  Cursor cursor{args.prefetch, args.x};
  ChunkWeights weights(args);
  for (int c = 0; c < w.num_chunks; c++) {
    AmxBf16Chunks::sum<B>(args, weights.chunk(c), cursor, c == 0 ? nullptr : stack.next()[0]);
    if (c > 0) stack.push(w.merges[c - 1]);
  }
  amx_store_sums<B>(stack.next(), kPanel * 4);
  stack.push_last(w.merges[w.num_chunks - 1]);
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
