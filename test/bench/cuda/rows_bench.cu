// Element-wise operators at the shape of Qwen3-0.6B.
#include <cstdio>
#include <string>
#include <vector>

#include "bench.h"

namespace nds::cuda::bench {
namespace {

constexpr int kHidden = kTiny ? 64 : 1024, kIntermediate = kTiny ? 96 : 3072, kBlockSize = 16, kHeadDim = 128;
constexpr int kHeads = kTiny ? 2 : 16, kKvHeads = kTiny ? 1 : 8, kLaunches = kTiny ? 2 : 20;
constexpr double kMeasuredMs = 4;

// One launch within a row of them, each of which may overlap the one before.
template <typename Launch>
void time_rows(const char* name, int rows, int64_t bytes, const Context& context, const Launch& launch) {
  char label[64];
  std::snprintf(label, sizeof label, "%-15s rows %5d", name, rows);
  if (!context.wants(label)) return;
  const double us = time_graph(context.stream, kMeasuredMs,
                               [&] {
                                 for (int i = 0; i < kLaunches; i++)
                                   launch(LaunchPlace{context.stream, i > 0 && !kTiny});
                               }) /
                    kLaunches;
  std::printf("%s: %9.2f us %8.1f GB/s\n", label, us, static_cast<double>(bytes) / us * 1e-3);
}

void bench_rope(int rows, const Context& context) {
  RopeAndStoreArgs args{};
  HeadLayout& heads = args.heads;
  heads.head_dim = kHeadDim;
  heads.num_heads = kHeads;
  heads.num_kv_heads = kKvHeads;
  heads.group_size = kHeads / kKvHeads;
  heads.k_offset = kHeads * kHeadDim;
  heads.v_offset = heads.k_offset + kKvHeads * kHeadDim;
  args.ld = heads.v_offset + kKvHeads * kHeadDim;
  args.ld_q = kHeads * kHeadDim;
  args.rows = rows;
  args.eps = 1e-6f;
  KvCache& kv = args.kv;
  kv.dtype = DType::bf16;
  kv.num_blocks = (rows + kBlockSize - 1) / kBlockSize;
  kv.block_size = kBlockSize;
  kv.num_kv_heads = kKvHeads;
  kv.head_dim = kHeadDim;
  kv.tile_bytes = 2 * kv.panel_bytes();
  kv.block_stride = kv.tile_bytes * kKvHeads;
  std::vector<int64_t> slots;
  for (int i = 0; i < rows; i++) slots.push_back(i);
  const std::vector<float> ones(kHeadDim, 1.0f), some(rows * kHeadDim / 2, 0.5f);
  const std::vector<float> inputs(rows * args.ld, 0.25f);
  const Buffer<float> qkv(inputs), weight(ones), cos(some), sin(some);
  const Buffer<int64_t> kv_slots(slots);
  const Buffer<uint8_t> cache(kv.block_stride * kv.num_blocks);
  const Buffer<__nv_bfloat16> q(rows * args.ld_q);
  args.qkv = qkv.data;
  args.q_weight = args.k_weight = weight.data;
  args.cos = cos.data;
  args.sin = sin.data;
  args.kv_slots = kv_slots.data;
  args.kv.base = cache.data;
  args.q_out = q.data;
  time_rows("rope_and_store", rows, rows * args.ld * 6, context,
            [&](LaunchPlace place) { rope_and_store(args, place); });
}

void bench_norm(int rows, const Context& context) {
  const std::vector<float> inputs(rows * kHidden, 0.25f);
  const Buffer<float> x(inputs), weight(inputs);
  const Buffer<__nv_bfloat16> out(rows * kHidden);
  const RmsNormArgs args{.x = x.data,
                         .ldx = kHidden,
                         .addend = nullptr,
                         .ld_addend = 0,
                         .weight = weight.data,
                         .eps = 1e-6f,
                         .rows = rows,
                         .width = kHidden,
                         .out = out.data,
                         .ld_out = kHidden,
                         .out_dtype = DType::bf16};
  time_rows("rms_norm", rows, int64_t{rows} * kHidden * 6, context, [&](LaunchPlace place) { rms_norm(args, place); });
}

void bench_silu(int rows, const Context& context) {
  const std::vector<float> inputs(rows * 2 * kIntermediate, 0.25f);
  const Buffer<float> gate_up(inputs);
  const Buffer<__nv_bfloat16> out(rows * kIntermediate);
  const SiluMulArgs args{.gate = gate_up.data,
                         .up = gate_up.data + kIntermediate,
                         .ld = 2 * kIntermediate,
                         .rows = rows,
                         .width = kIntermediate,
                         .out = out.data,
                         .ld_out = kIntermediate,
                         .out_dtype = DType::bf16};
  time_rows("silu_mul", rows, int64_t{rows} * kIntermediate * 10, context,
            [&](LaunchPlace place) { silu_mul(args, place); });
}

}  // namespace

void bench_rows(const Context& context) {
  for (const int rows : kTiny ? std::vector<int>{1, 70} : std::vector<int>{1, 8, 32, 256, 512, 4096}) {
    bench_rope(rows, context);
    bench_norm(rows, context);
    bench_silu(rows, context);
  }
}

}  // namespace nds::cuda::bench
