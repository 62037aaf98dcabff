// linear() at the shapes of Qwen3-0.6B and Qwen3-8B.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "bench.h"
#include "core/program/reduction_tree.h"

namespace nds::cuda::bench {
namespace {

constexpr int64_t kColdBytes = int64_t{320} << 20;  // total size of a matrix's copies, which exceeds the L2
constexpr int64_t kWeightBytes = int64_t{1} << (kTiny ? 18 : 30);  // max total size of the copies
constexpr int kMaxRows = kTiny ? 40 : 4096, kMaxK = kTiny ? 64 : 12288;
constexpr double kMeasuredMs = 12;

// silu_mul: gate above up, n rows in total.
struct Case {
  const char* name;
  int n, k, num_chunks;
  LinearResult result;
};

constexpr Case kCases[] = {
    {"0.6B qkv", 4096, 1024, 4, LinearResult::store},
    {"0.6B o", 1024, 2048, 16, LinearResult::add},
    {"0.6B gate/up", 6144, 1024, 4, LinearResult::silu_mul},
    {"0.6B down", 1024, 3072, 16, LinearResult::add},
    {"0.6B lm head", 151936, 1024, 4, LinearResult::store},
    {"8B qkv", 6144, 4096, 4, LinearResult::store},
    {"8B o", 4096, 4096, 32, LinearResult::add},
    {"8B gate/up", 24576, 4096, 4, LinearResult::silu_mul},
    {"8B down", 4096, 12288, 32, LinearResult::add},
};

constexpr Case kTinyCases[] = {
    {"tiny o", 64, 64, 2, LinearResult::add},
    {"tiny gate/up", 64, 64, 2, LinearResult::silu_mul},
};

struct Inputs {
  Buffer<__nv_bfloat16> weights{kWeightBytes / 2}, x{int64_t{kMaxRows} * kMaxK};
};

void run(const Case& c, int m, const Inputs& inputs, const Context& context) {
  char label[96];
  std::snprintf(label, sizeof(label), "%-13s n %6d k %5d chunks %2d m %4d", c.name, c.n, c.k, c.num_chunks, m);
  if (!context.wants(label)) return;
  std::vector<int32_t> edges(c.num_chunks + 1);
  for (int i = 0; i <= c.num_chunks; i++) edges[i] = static_cast<int32_t>(int64_t{c.k} / 32 * i / c.num_chunks * 32);
  const std::vector<uint8_t> merges = local_merges(c.num_chunks, 0, c.num_chunks);
  const Buffer<int32_t> device_edges(edges);
  const Buffer<uint8_t> device_merges(merges);
  const bool is_product = c.result == LinearResult::silu_mul;
  const int width = is_product ? c.n / 2 : c.n;
  const Buffer<float> y(int64_t{m} * width);

  LinearArgs args;
  args.x = inputs.x.data;
  args.x_dtype = DType::bf16;
  args.ldx = c.k;
  args.m = m;
  args.w.dtype = DType::bf16;
  args.w.num_rows = c.n;
  args.w.k = c.k;
  args.w.ld = c.k;
  args.w.num_chunks = c.num_chunks;
  for (int i = 0, depth = 0; i < c.num_chunks; i++) {
    args.w.stack_depth = std::max(args.w.stack_depth, ++depth);
    depth -= merges[i];
  }
  args.w.chunk_edges = device_edges.data;
  args.w.merges = device_merges.data;
  args.w.host_edges = edges.data();
  args.w.host_merges = merges.data();
  args.w.on_tensor_cores = true;
  args.result = c.result;
  args.y = y.data;
  args.ldy = width;
  args.out = y.data;
  args.ld_out = args.width = args.up_offset = width;

  const int64_t matrix = int64_t{c.n} * c.k;
  const int64_t copies = std::max<int64_t>(1, std::min(kColdBytes / (matrix * 2) + 1, kWeightBytes / 2 / matrix));
  const int64_t launches = std::clamp<int64_t>(copies, 4, 64);
  const double us = time_graph(context.stream, kMeasuredMs,
                               [&] {
                                 for (int64_t i = 0; i < launches; i++) {
                                   args.w.data = inputs.weights.data + i % copies * matrix;
                                   linear(args, context.stream);
                                 }
                               }) /
                    static_cast<double>(launches);
  const double result_bytes = double(m) * width * (is_product ? 2 : c.result == LinearResult::add ? 8 : 4);
  const double bytes = 2.0 * matrix + 2.0 * m * c.k + result_bytes, flops = 2.0 * m * matrix;
  std::printf("%s: %9.2f us %7.1f GB/s %5.1f %% %7.1f TFLOP/s\n", label, us, bytes / us * 1e-3,
              bytes / us * 1e6 / context.bytes_per_second * 100, flops / us * 1e-6);
  std::fflush(stdout);
}

}  // namespace

void bench_linear(const Context& context) {
  const Inputs inputs;
  fill(inputs.weights, kWeightBytes / 2, context.stream);
  fill(inputs.x, int64_t{kMaxRows} * kMaxK, context.stream);
  if (kTiny) {
    for (const int m : {1, 40})
      for (const Case& c : kTinyCases) run(c, m, inputs, context);
    return;
  }
  for (const int m : {1, 8, 32, 256, 4096})
    for (const Case& c : kCases) run(c, m, inputs, context);
}

}  // namespace nds::cuda::bench
