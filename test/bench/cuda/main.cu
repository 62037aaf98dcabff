// Times kernels on a GPU: kernel_bench [part of a name]. `node test/cuda/build.mjs nvcc` builds it.
#include <cstdio>

#include "bench.h"

namespace nds::cuda::bench {
namespace {

constexpr int kLoads = 8;  // of 16 bytes, in flight per thread

__global__ void fill_kernel(__nv_bfloat16* out, int64_t count) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += int64_t{gridDim.x} * blockDim.x) {
    uint32_t hash = static_cast<uint32_t>(i) * 2654435761u;
    hash = (hash ^ (hash >> 15)) * 2246822519u;
    out[i] = __float2bfloat16(static_cast<float>(static_cast<int32_t>(hash ^ (hash >> 13))) * (1.0f / 2147483648.0f));
  }
}

// Reads all of data; out is never written, which the compiler cannot know.
__global__ void read_kernel(const uint4* data, int64_t count, uint32_t* out) {
  uint32_t all = 0;
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step * kLoads) {
    uint4 loads[kLoads];
    for (int j = 0; j < kLoads; j++) loads[j] = i + j * step < count ? simt::ld_nc_16(data + i + j * step) : uint4{};
    for (const uint4& load : loads) all |= load.x | load.y | load.z | load.w;
  }
  if (all == 0xffffffffu) *out = all;
}

double read_bytes_per_second(cudaStream_t stream) {
  const int64_t bytes = int64_t{1} << (kTiny ? 16 : 31);
  const Buffer<uint4> data(bytes / 16);
  const Buffer<uint32_t> out(1);
  check(cudaMemsetAsync(data.data, 0, static_cast<size_t>(bytes), stream), "cudaMemsetAsync");
  const simt::LaunchShape shape{dim3(kTiny ? 1 : 1056), dim3(256), 0, stream};
  const double us = time_graph(
      stream, 20, [&] { check(simt::launch(read_kernel, shape, data.data, bytes / 16, out.data), "read_kernel"); });
  return static_cast<double>(bytes) / (us * 1e-6);
}

void run_all(const std::string& part) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  Context context{nullptr, 0, part};
  check(cudaStreamCreateWithFlags(&context.stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  context.bytes_per_second = read_bytes_per_second(context.stream);
  std::printf("%s, %d multiprocessors; shares are of the %.0f GB/s of a plain read\n", properties.name,
              properties.multiProcessorCount, context.bytes_per_second * 1e-9);
  bench_linear(context);
  bench_attention(context);
  bench_rows(context);
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
