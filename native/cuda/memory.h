// Device and pinned memory with owners.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "cuda/check.h"

namespace nds::cuda {

// Memory of the current device; not zeroed. `what` names the use in the ERR_CUDA error when there is not enough.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(int64_t bytes, const char* what);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    DeviceMemory old(std::move(other));
    swap(old);
    return *this;
  }

  int64_t size() const { return size_; }
  template <typename T = uint8_t>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void swap(DeviceMemory& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  void* data_ = nullptr;
  int64_t size_ = 0;
};

// Host memory that the device copies from and to without waiting. Grows by replacement: what it held is lost.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  // At least `bytes` bytes. No copy from or to the memory may be in flight.
  uint8_t* reserve(int64_t bytes);
  uint8_t* data() const { return data_; }

 private:
  uint8_t* data_ = nullptr;
  int64_t size_ = 0;
};

// A word in pinned memory that host threads raise from 0 to 1 and kernels read.
class HostFlag {
 public:
  HostFlag();
  void raise();
  const uint32_t* address() const { return reinterpret_cast<const uint32_t*>(memory_.data()); }

 private:
  PinnedMemory memory_;
};

}  // namespace nds::cuda
