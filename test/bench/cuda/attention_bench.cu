// Times paged attention on a GPU: decode and verify relative to memory bandwidth, prefill in TFLOP/s. nvcc only:
//   nvcc -std=c++20 -O3 -arch=sm_90 -Inative test/bench/cuda/attention_bench.cu native/cuda/kernels/attention*.cu
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include "cuda/check.h"
#include "cuda/kernels.h"

namespace nds::cuda {
namespace {

constexpr int kHeadDim = 128, kNumKvHeads = 8, kBlockSize = 64;
constexpr double kPeakBandwidth = 3.35e12;  // of an H100 SXM, bytes per second
constexpr int64_t kMaxCacheBytes = int64_t{8} << 30;
constexpr int64_t kColdBytes = int64_t{512} << 20;  // total size of the layers, which exceeds the L2 cache
constexpr double kMeasuredMs = 60;

// Fills with numbers between -1 and 1.
__global__ void fill_kernel(__nv_bfloat16* out, int64_t count) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += int64_t{gridDim.x} * blockDim.x) {
    uint32_t hash = static_cast<uint32_t>(i) * 2654435761u;
    hash = (hash ^ (hash >> 15)) * 2246822519u;
    out[i] = __float2bfloat16(static_cast<float>(static_cast<int32_t>(hash ^ (hash >> 13))) * (1.0f / 2147483648.0f));
  }
}

template <typename T>
class Buffer {
 public:
  explicit Buffer(int64_t count) {
    check(cudaMalloc(reinterpret_cast<void**>(&data), std::max<int64_t>(count, 1) * sizeof(T)), "cudaMalloc");
  }
  explicit Buffer(const std::vector<T>& host) : Buffer(static_cast<int64_t>(host.size())) {
    check(cudaMemcpy(data, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cudaFree(data); }
  T* data = nullptr;
};

void fill(Buffer<__nv_bfloat16>& buffer, int64_t count, cudaStream_t stream) {
  check(simt::launch(fill_kernel, {dim3(1024), dim3(256), 0, stream}, buffer.data, count), "fill_kernel");
}

struct Case {
  const char* name;
  int num_heads, num_seqs, query_len, context_len;
};

// Microseconds per run of the graph that `record` captures: the fastest of three measurements.
template <typename Record>
double time_graph(cudaStream_t stream, const Record& record) {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  cudaEvent_t begin, end;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  record();
  check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  check(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
  check(cudaEventCreate(&begin), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  double best = 1e30;
  int runs = 1;
  for (int i = 0; i < 4; i++) {  // the first warms up and determines the number of runs
    check(cudaEventRecord(begin, stream), "cudaEventRecord");
    for (int run = 0; run < runs; run++) check(cudaGraphLaunch(exec, stream), "cudaGraphLaunch");
    check(cudaEventRecord(end, stream), "cudaEventRecord");
    check(cudaEventSynchronize(end), "cudaEventSynchronize");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    if (i > 0)
      best = std::min(best, double{ms} * 1000 / runs);
    else
      runs = std::max(1, std::min(200, static_cast<int>(kMeasuredMs / ms)));
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  return best;
}

void run(const Case& test, cudaStream_t stream) {
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

  const double plan_us = time_graph(stream,
                                    [&] {
                                      for (int i = 0; i < 10; i++) plan_attention(args.batch, limits, stream);
                                    }) /
                         10;
  const int64_t launches = std::max<int64_t>(num_layers, test.query_len > 64 ? 1 : 16);
  const double us = time_graph(stream,
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
  std::printf(
      "%-8s heads %2d/%d  seqs %3d  queries %4d  context %4d  %9.1f us  %6.0f GB/s  %5.1f %%  %6.1f TFLOP/s  plan "
      "%4.1f us\n",
      test.name, test.num_heads, kNumKvHeads, test.num_seqs, test.query_len, test.context_len, us, bytes / us * 1e-3,
      100 * bytes / (us * 1e-6) / kPeakBandwidth, flops / us * 1e-6, plan_us);
  std::fflush(stdout);
}

void run_all() {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  std::printf("%s, %d multiprocessors; share of %.2f TB/s\n", properties.name, properties.multiProcessorCount,
              kPeakBandwidth * 1e-12);
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  for (const int num_heads : {16, 32}) {
    for (const int context_len : {512, 4096})
      for (const int num_seqs : {1, 8, 32, 256}) run({"decode", num_heads, num_seqs, 1, context_len}, stream);
    for (const int num_seqs : {1, 32}) run({"verify", num_heads, num_seqs, 5, 4096}, stream);
    for (const int num_tokens : {512, 4096}) run({"prefill", num_heads, 1, num_tokens, num_tokens}, stream);
    run({"chunk", num_heads, 1, 512, 4096}, stream);
  }
}

}  // namespace
}  // namespace nds::cuda

int main() {
  try {
    nds::cuda::run_all();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
