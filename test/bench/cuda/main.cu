// Times kernels on a GPU: kernel_bench [part of a name]. `node test/cuda/build.mjs nvcc` builds it.
#include <cstdio>

#include "bench.h"

namespace nds::cuda::bench {
namespace {

__global__ void fill_kernel(__nv_bfloat16* out, int64_t count) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += int64_t{gridDim.x} * blockDim.x) {
    uint32_t hash = static_cast<uint32_t>(i) * 2654435761u;
    hash = (hash ^ (hash >> 15)) * 2246822519u;
    out[i] = __float2bfloat16(static_cast<float>(static_cast<int32_t>(hash ^ (hash >> 13))) * (1.0f / 2147483648.0f));
  }
}

double copied_bytes_per_second(cudaStream_t stream) {
  const int64_t bytes = int64_t{1} << (kTiny ? 16 : 30);
  const Buffer<uint8_t> from(bytes), to(bytes);
  const double us = time_graph(stream, 20, [&] {
    check(cudaMemcpyAsync(to.data, from.data, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream), "a copy");
  });
  return 2.0 * static_cast<double>(bytes) / (us * 1e-6);
}

void run_all(const std::string& part) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  Context context{nullptr, 0, part};
  check(cudaStreamCreateWithFlags(&context.stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  context.bytes_per_second = copied_bytes_per_second(context.stream);
  std::printf("%s, %d multiprocessors; shares are of a copy's %.0f GB/s\n", properties.name,
              properties.multiProcessorCount, context.bytes_per_second * 1e-9);
  bench_linear(context);
  bench_attention(context);
  check(cudaStreamDestroy(context.stream), "cudaStreamDestroy");
}

}  // namespace

void fill(const Buffer<__nv_bfloat16>& buffer, int64_t count, cudaStream_t stream) {
  check(simt::launch(fill_kernel, {dim3(kTiny ? 1 : 1024), dim3(256), 0, stream}, buffer.data, count), "fill_kernel");
}

}  // namespace nds::cuda::bench

int main(int argc, char** argv) {
  try {
    nds::cuda::bench::run_all(argc > 1 ? argv[1] : "");
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
