// Device and pinned memory with owners.
#include "cuda/memory.h"

#include <algorithm>

namespace nds::cuda {

DeviceMemory::DeviceMemory(int64_t bytes, const char* what) : size_(bytes) {
  if (bytes <= 0) {
    size_ = 0;
    return;
  }
  const cudaError_t error = cudaMalloc(&data_, static_cast<size_t>(bytes));
  if (error == cudaSuccess) return;
  cudaGetLastError();  // clears it: out of memory is not sticky
  size_t free_bytes = 0, total_bytes = 0;
  cudaMemGetInfo(&free_bytes, &total_bytes);
  data_ = nullptr;
  throw Error("ERR_CUDA", "Expected " + std::to_string(bytes) + " bytes of device memory for " + what +
                              " but received: " + cudaGetErrorString(error) + " (" + std::to_string(free_bytes) +
                              " of " + std::to_string(total_bytes) + " bytes are free)");
}

DeviceMemory::~DeviceMemory() {
  if (data_ != nullptr) cudaFree(data_);
}

PinnedMemory::~PinnedMemory() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

uint8_t* PinnedMemory::reserve(int64_t bytes) {
  if (bytes <= size_) return data_;
  if (data_ != nullptr) check(cudaFreeHost(data_), "freeing pinned memory");
  data_ = nullptr;
  const int64_t size = std::max<int64_t>(bytes + bytes / 2, 1 << 16);
  void* memory = nullptr;
  check(cudaMallocHost(&memory, static_cast<size_t>(size)), "allocating pinned memory");
  data_ = static_cast<uint8_t*>(memory);
  size_ = size;
  return data_;
}

HostFlag::HostFlag() { *reinterpret_cast<uint32_t*>(memory_.reserve(sizeof(uint32_t))) = 0; }

void HostFlag::raise() { __atomic_store_n(reinterpret_cast<uint32_t*>(memory_.data()), 1u, __ATOMIC_RELEASE); }

}  // namespace nds::cuda
