// Memory of the emulated devices. Each array is filled with poison, ends just before a guard page, and counts against
// the size of its device.
#pragma once
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "simt/sanitizer.h"

namespace simt {

constexpr uint8_t kPoison = 0xff;  // NaN as float and 16-bit float, -1 as an integer

enum class Place { host, device, partly_device };

class DeviceMemory {
 public:
  // The device's number of the list, or the list's last.
  static size_t total_bytes(int device) {
    const char* text = std::getenv("NDS_EMULATED_MEMORY_BYTES");
    if (text == nullptr) return size_t{2} << 30;
    for (; device > 0 && std::strchr(text, ',') != nullptr; device--) text = std::strchr(text, ',') + 1;
    return std::strtoull(text, nullptr, 10);
  }

  // Null if the device, or the host, has too little memory left.
  void* allocate(size_t bytes, int device) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const size_t padded = (std::max<size_t>(bytes, 1) + 255) / 256 * 256;
    if (padded + used_[device] > total_bytes(device)) return nullptr;
    const size_t usable = (padded + kPage - 1) / kPage * kPage, mapped = usable + kPage;
    void* const memory =
        mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    uint8_t* const start = static_cast<uint8_t*>(memory);
    poison(start, usable);
    mprotect(start + usable, kPage, PROT_NONE);
    uint8_t* const address = start + usable - padded;
    __asan_poison_memory_region(start, usable - padded);
    __asan_poison_memory_region(address + bytes, padded - bytes);
    arrays_[address] = {start, mapped, bytes, padded, device};
    used_[device] += padded;
    if (kProtect && access_depth_ == 0) mprotect(start, usable, PROT_NONE);
    return address;
  }

  // -1 if no array starts at address.
  int device_of(void* address) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = arrays_.find(static_cast<uint8_t*>(address));
    return found == arrays_.end() ? -1 : found->second.device;
  }

  void release(void* address) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = arrays_.find(static_cast<uint8_t*>(address));
    if (found == arrays_.end()) return;
    const Array array = found->second;
    arrays_.erase(found);
    used_[array.device] -= array.padded_bytes;
    __asan_unpoison_memory_region(array.mapping, array.mapped_bytes);
    munmap(array.mapping, array.mapped_bytes);
  }

  Place place_of(const void* address, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const uint8_t* const first = static_cast<const uint8_t*>(address);
    const auto next = arrays_.upper_bound(const_cast<uint8_t*>(first));
    if (next != arrays_.end() && first + bytes > next->first) return Place::partly_device;
    if (next == arrays_.begin()) return Place::host;
    const auto& [start, array] = *std::prev(next);
    if (first >= array.mapping + array.mapped_bytes) return Place::host;
    return first + bytes <= start + array.bytes ? Place::device : Place::partly_device;
  }

  size_t used_bytes(int device) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return used_[device];
  }

  // Location of an address, for an error message.
  std::string describe(const void* address) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const uint8_t* const at = static_cast<const uint8_t*>(address);
    for (const auto& [start, array] : arrays_)
      if (at >= array.mapping && at < array.mapping + array.mapped_bytes)
        return (at < start ? std::to_string(start - at) + " bytes before"
                           : "at byte " + std::to_string(at - start) + " of") +
               " device memory of " + std::to_string(array.bytes) + " bytes";
    return "in no device memory";
  }

  // With SIMT_PROTECT, host code that touches device memory crashes. Calls nest.
  void set_access(bool allowed) {
    if (!kProtect) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    access_depth_ += allowed ? 1 : -1;
    if (access_depth_ != (allowed ? 1 : 0)) return;
    for (const auto& [address, array] : arrays_)
      mprotect(array.mapping, array.mapped_bytes - kPage, allowed ? PROT_READ | PROT_WRITE : PROT_NONE);
  }

 private:
  struct Array {
    uint8_t* mapping;
    size_t mapped_bytes, bytes, padded_bytes;
    int device;
  };

  static constexpr size_t kPoisonFileBytes = size_t{2} << 20;

  // Large arrays map a file of poison repeatedly and privately, so that unwritten pages cost no memory.
  void poison(uint8_t* start, size_t bytes) {
    size_t done = 0;
    if (bytes >= 4 * kPoisonFileBytes && poison_file() >= 0) {
      for (; done + kPoisonFileBytes <= bytes; done += kPoisonFileBytes)
        if (mmap(start + done, kPoisonFileBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                 poison_file_, 0) == MAP_FAILED)
          break;
    }
    std::memset(start + done, kPoison, bytes - done);
  }
  int poison_file() {
    if (poison_file_ != -1) return poison_file_;
    poison_file_ = memfd_create("nds-poison", MFD_CLOEXEC);
    const std::string page(kPoisonFileBytes, static_cast<char>(kPoison));
    if (poison_file_ < 0 || write(poison_file_, page.data(), page.size()) != static_cast<ssize_t>(page.size()))
      poison_file_ = -2;
    return poison_file_;
  }

  const size_t kPage = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const bool kProtect = std::getenv("SIMT_PROTECT") != nullptr;
  std::mutex mutex_;
  std::map<uint8_t*, Array> arrays_;  // by address
  std::map<int, size_t> used_;        // by device
  int access_depth_ = 0;
  int poison_file_ = -1;
};

inline DeviceMemory& device_memory() {
  static DeviceMemory* const only = new DeviceMemory;  // outlives static destructors that free device memory
  return *only;
}

}  // namespace simt
