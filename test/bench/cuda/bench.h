// What benchmarks of kernels share: device arrays, the time of a graph, the device's bandwidth. On the emulated device,
// which shows only that they run, cases are tiny.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "cuda/check.h"
#include "cuda/kernels.h"

namespace nds::cuda::bench {

#if defined(NDS_EMULATED)
constexpr bool kTiny = true;
#else
constexpr bool kTiny = false;
#endif

template <typename T>
class Buffer {
 public:
  explicit Buffer(int64_t count) {
    check(cudaMalloc(reinterpret_cast<void**>(&data), static_cast<size_t>(std::max<int64_t>(count, 1)) * sizeof(T)),
          "cudaMalloc");
  }
  explicit Buffer(const std::vector<T>& host) : Buffer(static_cast<int64_t>(host.size())) {
    check(cudaMemcpy(data, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cudaFree(data); }
  T* data = nullptr;
};

// Fills with numbers between -1 and 1.
void fill(const Buffer<__nv_bfloat16>& buffer, int64_t count, cudaStream_t stream);

// Microseconds per run of the graph that `record` captures: the fastest of three measurements of about `measured_ms`.
template <typename Record>
double time_graph(cudaStream_t stream, double measured_ms, const Record& record) {
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
      runs = std::clamp(static_cast<int>(measured_ms / std::max(ms, 1e-3f)), 1, 200);
  }
  check(cudaEventDestroy(begin), "cudaEventDestroy");
  check(cudaEventDestroy(end), "cudaEventDestroy");
  check(cudaGraphExecDestroy(exec), "cudaGraphExecDestroy");
  check(cudaGraphDestroy(graph), "cudaGraphDestroy");
  return best;
}

struct Context {
  cudaStream_t stream;
  double bytes_per_second;  // of a plain read of the device's memory
  std::string part;         // of the names of cases to run
  bool wants(const std::string& name) const { return name.find(part) != std::string::npos; }
};

void bench_attention(const Context& context);
void bench_linear(const Context& context);
void bench_rows(const Context& context);

}  // namespace nds::cuda::bench
