// Times linear() on a GPU at the shapes of Qwen3-0.6B and Qwen3-8B. nvcc only:
//   nvcc -std=c++20 -O3 -arch=sm_90 -Inative test/bench/cuda/linear_bench.cu native/cuda/kernels/linear*.cu \
//     native/core/program/reduction_tree.cc
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/program/reduction_tree.h"
#include "cuda/check.h"
#include "cuda/kernels.h"

namespace nds::cuda {
namespace {

constexpr double kPeakBandwidth = 3.35e12;          // of an H100 SXM, bytes per second
constexpr int64_t kColdBytes = int64_t{320} << 20;  // total size of a matrix's copies, which exceeds the L2
constexpr int64_t kWeightBytes = int64_t{1} << 30;  // max total size of the copies
constexpr int kMaxRows = 4096;
constexpr double kMeasuredMs = 50;

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

class Bench {
 public:
  Bench() : weights_(kWeightBytes / 2), x_(int64_t{kMaxRows} * 12288) {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    check(cudaEventCreateWithFlags(&begin_, 0), "cudaEventCreate");
    check(cudaEventCreateWithFlags(&end_, 0), "cudaEventCreate");
    check(simt::launch(fill_kernel, {dim3(1024), dim3(256), 0, stream_}, weights_.data, kWeightBytes / 2),
          "fill_kernel");
    check(simt::launch(fill_kernel, {dim3(1024), dim3(256), 0, stream_}, x_.data, int64_t{kMaxRows} * 12288),
          "fill_kernel");
  }

  void run(const Case& c, int m, bool overlaps) {
    std::vector<int32_t> edges(c.num_chunks + 1);
    for (int i = 0; i <= c.num_chunks; i++) edges[i] = static_cast<int32_t>(int64_t{c.k} / 32 * i / c.num_chunks * 32);
    const std::vector<uint8_t> merges = local_merges(c.num_chunks, 0, c.num_chunks);
    const Buffer<int32_t> device_edges(edges);
    const Buffer<uint8_t> device_merges(merges);
    const bool is_product = c.result == LinearResult::silu_mul;
    const int width = is_product ? c.n / 2 : c.n;
    const Buffer<float> y(int64_t{m} * width);

    LinearArgs args;
    args.x = x_.data;
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
    const int copies =
        static_cast<int>(std::max<int64_t>(1, std::min(kColdBytes / (matrix * 2) + 1, kWeightBytes / 2 / matrix)));
    const double us = time([&](int i) {
      args.w.data = weights_.data + i % copies * matrix;
      linear(args, {stream_, overlaps});
    });
    const double result_bytes = double(m) * width * (is_product ? 2 : c.result == LinearResult::add ? 8 : 4);
    const double bytes = 2.0 * matrix + 2.0 * m * c.k + result_bytes, flops = 2.0 * m * matrix;
    std::printf("%-13s n %6d k %5d chunks %2d m %4d: %9.2f us %7.1f GB/s %5.1f %% of memory %7.1f TFLOP/s\n", c.name,
                c.n, c.k, c.num_chunks, m, us, bytes / us * 1e-3, bytes / us * 1e6 / kPeakBandwidth * 100,
                flops / us * 1e-6);
    std::fflush(stdout);
  }

 private:
  // Microseconds per launch: the fastest of three replays of a graph of many launches.
  template <typename Launch>
  double time(const Launch& launch) {
    launch(0);
    const double once = elapsed_ms([&] { launch(1); });
    const int count = std::max(4, std::min(400, static_cast<int>(kMeasuredMs / 4 / std::max(once, 0.002))));
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    for (int i = 0; i < count; i++) launch(i);
    check(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
    check(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
    double best = 1e30;
    for (int i = 0; i < 4; i++) {
      const double ms = elapsed_ms([&] { check(cudaGraphLaunch(exec, stream_), "cudaGraphLaunch"); });
      if (i > 0) best = std::min(best, ms);
    }
    check(cudaGraphExecDestroy(exec), "cudaGraphExecDestroy");
    check(cudaGraphDestroy(graph), "cudaGraphDestroy");
    return best * 1e3 / count;
  }
  template <typename Run>
  double elapsed_ms(const Run& run) {
    check(cudaEventRecord(begin_, stream_), "cudaEventRecord");
    run();
    check(cudaEventRecord(end_, stream_), "cudaEventRecord");
    check(cudaEventSynchronize(end_), "linear");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin_, end_), "cudaEventElapsedTime");
    return ms;
  }

  Buffer<__nv_bfloat16> weights_, x_;
  cudaStream_t stream_;
  cudaEvent_t begin_, end_;
};

}  // namespace
}  // namespace nds::cuda

// linear_bench [part of a name] [m, 0 = all] [overlap: programmatic dependent launches]
int main(int argc, char** argv) {
  using namespace nds::cuda;
  const std::string part = argc > 1 ? argv[1] : "";
  const int only = argc > 2 ? std::atoi(argv[2]) : 0;
  const bool overlaps = argc > 3 && std::string(argv[3]) == "overlap";
  Bench bench;
  for (const int m : {1, 8, 32, 256, 4096}) {
    if (only != 0 && m != only) continue;
    for (const Case& c : kCases) {
      if (std::string(c.name).find(part) != std::string::npos) bench.run(c, m, overlaps);
    }
  }
}
