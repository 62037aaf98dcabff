// Paged attention: decode and verify relative to memory bandwidth, prefill in TFLOP/s.
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include "bench.h"

namespace nds::cuda::bench {
namespace {

constexpr int kHeadDim = 128, kNumKvHeads = 8, kBlockSize = 64;
constexpr int64_t kMaxCacheBytes = int64_t{8} << (kTiny ? 20 : 30);
constexpr int64_t kColdBytes = int64_t{512} << (kTiny ? 10 : 20);  // total size of the layers, which exceeds the L2
constexpr double kMeasuredMs = 60;

struct Case {
  const char* name;
  int num_heads, num_seqs, query_len, context_len;
};

void run(const Case& test, const Context& context) {
  char label[96];
  std::snprintf(label, sizeof(label), "%-8s heads %2d/%d  seqs %3d  queries %4d  context %4d", test.name,
                test.num_heads, kNumKvHeads, test.num_seqs, test.query_len, test.context_len);
  if (!context.wants(label)) return;
  const cudaStream_t stream = context.stream;
  const int blocks_per_seq = (test.context_len + kBlockSize - 1) / kBlockSize,
            num_tokens = test.num_seqs * test.query_len;
  AttentionArgs args{};
  KvCache& kv = args.kv;
  kv.dtype = DType::bf16;
  kv.num_blocks = test.num_seqs * blocks_per_seq;
  kv.block_size = kBlockSize;
  kv.num_kv_heads = kNumKvHeads;
  kv.head_dim = kHeadDim;
  kv.tile_bytes = 2 * kv.panel_bytes();
  kv.block_stride = kv.tile_bytes * kNumKvHeads;
  const int64_t layer_bytes = kv.block_stride * kv.num_blocks;
  const int64_t num_layers =
      std::max<int64_t>(1, std::min<int64_t>({64, kColdBytes / layer_bytes + 1, kMaxCacheBytes / layer_bytes}));

  std::vector<int32_t> cu_query_lens, first_blocks, blocks(kv.num_blocks);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::mt19937 engine(1);
  std::shuffle(blocks.begin(), blocks.end(), engine);
  for (int i = 0; i <= test.num_seqs; i++) {
    cu_query_lens.push_back(i * test.query_len);
    first_blocks.push_back(i * blocks_per_seq);
  }
  const int width = test.num_heads * kHeadDim;
  Buffer<int32_t> num_seqs_(std::vector<int32_t>{test.num_seqs}), cu_query_lens_(cu_query_lens),
      first_blocks_(first_blocks), context_lens_(std::vector<int32_t>(test.num_seqs, test.context_len)),
      block_tables_(blocks);
  Buffer<__nv_bfloat16> cache_(num_layers * layer_bytes / 2), q_(int64_t{num_tokens} * width),
      out_(int64_t{num_tokens} * width);
  fill(cache_, num_layers * layer_bytes / 2, stream);
  fill(q_, int64_t{num_tokens} * width, stream);
  const AttentionLimits limits{.max_seqs = test.num_seqs,
                               .max_tokens = num_tokens,
                               .max_model_len = test.context_len,
                               .num_heads = test.num_heads,
                               .num_kv_heads = kNumKvHeads,
                               .group_size = test.num_heads / kNumKvHeads,
                               .head_dim = kHeadDim,
                               .dtype = DType::bf16,
                               .kv_dtype = KvDtype::activation};
  Buffer<uint8_t> plan_(attention_plan_bytes(limits)), scratch_(attention_scratch_bytes(limits));
  args.batch = {num_seqs_.data, cu_query_lens_.data, context_lens_.data, first_blocks_.data, block_tables_.data,
                plan_.data,     test.num_seqs,       num_tokens,         test.query_len,     test.context_len};
  args.q = q_.data;
  args.out = out_.data;
  args.ldq = args.ld_out = width;
  args.heads.head_dim = kHeadDim;
  args.heads.num_heads = test.num_heads;
  args.heads.num_kv_heads = kNumKvHeads;
  args.heads.group_size = test.num_heads / kNumKvHeads;
  args.scale = 0.08838834764f;
  args.scratch = scratch_.data;

  const double plan_us = time_graph(stream, kMeasuredMs,
                                    [&] {
                                      for (int i = 0; i < 10; i++) plan_attention(args.batch, limits, stream);
                                    }) /
                         10;
  const int64_t launches = std::max<int64_t>(num_layers, test.query_len > 64 ? 1 : 16);
  const double us = time_graph(stream, kMeasuredMs,
                               [&] {
                                 for (int64_t i = 0; i < launches; i++) {
                                   args.kv.base =
                                       reinterpret_cast<uint8_t*>(cache_.data) + i % num_layers * layer_bytes;
                                   paged_attention(args, limits, stream);
                                 }
                               }) /
                    static_cast<double>(launches);
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");

  const double cached = test.context_len - test.query_len, queries = test.query_len;
  const double flops = 4.0 * width * test.num_seqs * (cached * queries + queries * (queries + 1) / 2);
  const double kv_bytes = 2.0 * 2 * kNumKvHeads * kHeadDim * test.num_seqs * test.context_len;
  const double bytes = kv_bytes + 4.0 * width * num_tokens;
  std::printf("%s  %9.1f us  %6.0f GB/s  %5.1f %%  %6.1f TFLOP/s  plan %4.1f us\n", label, us, bytes / us * 1e-3,
              100 * bytes / (us * 1e-6) / context.bytes_per_second, flops / us * 1e-6, plan_us);
  std::fflush(stdout);
}

}  // namespace

void bench_attention(const Context& context) {
  if (kTiny) {
    run({"decode", 16, 2, 1, 40}, context);
    run({"prefill", 16, 1, 70, 70}, context);
    return;
  }
  for (const int num_heads : {16, 32}) {
    for (const int context_len : {512, 4096})
      for (const int num_seqs : {1, 8, 32, 256}) run({"decode", num_heads, num_seqs, 1, context_len}, context);
    for (const int num_seqs : {1, 32}) run({"verify", num_heads, num_seqs, 5, 4096}, context);
    for (const int num_tokens : {512, 4096}) run({"prefill", num_heads, 1, num_tokens, num_tokens}, context);
    run({"chunk", num_heads, 1, 512, 4096}, context);
  }
}

}  // namespace nds::cuda::bench
