// Memory of the emulated devices. Each array is filled with poison, ends just before a guard page, and counts against
// the size of its device. A shared one is a file without a name, which peers open through /proc: nothing is left behind
// when a process dies.
#pragma once
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

// An array that another process can map.
struct ExportedArray {
  int64_t pid;
  uint64_t inode;
  uint64_t usable_bytes, padded_bytes, bytes;
  int file;
};

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
    arrays_[address] = {start, mapped, bytes, padded, device, -1};
    poison_edges(arrays_[address], address);
    used_[device] += padded;
    if (kProtect && access_depth_ == 0) mprotect(start, usable, PROT_NONE);
    return address;
  }

  // Moves the array that starts at `address` to memory that peers can map; work that touches it must not run meanwhile.
  // False if there is no such array, or the host refuses.
  bool share(void* address, ExportedArray& shared) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = arrays_.find(static_cast<uint8_t*>(address));
    if (found == arrays_.end() || found->second.device < 0) return false;
    Array& array = found->second;
    if (array.file < 0 && !move_to_file(array, found->first)) return false;
    struct stat info;
    if (fstat(array.file, &info) != 0) return false;
    shared = {getpid(), info.st_ino, array.mapped_bytes - kPage, array.padded_bytes, array.bytes, array.file};
    return true;
  }

  // Maps an array of another process; null if that has ended or freed it.
  void* open(const ExportedArray& shared) {
    const std::string path = "/proc/" + std::to_string(shared.pid) + "/fd/" + std::to_string(shared.file);
    const int file = shared.pid == getpid() ? -1 : ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (file < 0) return nullptr;
    struct stat info;
    const bool is_same = fstat(file, &info) == 0 && info.st_ino == shared.inode &&
                         info.st_size == static_cast<off_t>(shared.usable_bytes);
    const size_t mapped = shared.usable_bytes + kPage;
    void* const memory = is_same ? mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (memory == MAP_FAILED || !map_file(static_cast<uint8_t*>(memory), shared.usable_bytes, file)) {
      ::close(file);
      return nullptr;
    }
    uint8_t* const start = static_cast<uint8_t*>(memory);
    uint8_t* const address = start + shared.usable_bytes - shared.padded_bytes;
    arrays_[address] = {start, mapped, shared.bytes, shared.padded_bytes, -1, file};
    poison_edges(arrays_[address], address);
    return address;
  }

  bool close(void* address) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = arrays_.find(static_cast<uint8_t*>(address));
    if (found == arrays_.end() || found->second.device >= 0) return false;
    unmap(found);
    return true;
  }

  // -1 if no array of this process starts at address.
  int device_of(void* address) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = arrays_.find(static_cast<uint8_t*>(address));
    return found == arrays_.end() ? -1 : found->second.device;
  }

  void release(void* address) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = arrays_.find(static_cast<uint8_t*>(address));
    if (found == arrays_.end()) return;
    used_[found->second.device] -= found->second.padded_bytes;
    unmap(found);
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
    int device;  // -1: of another process
    int file;    // where other processes may map it; else -1
  };

  static constexpr size_t kPoisonFileBytes = size_t{2} << 20;

  bool map_file(uint8_t* start, size_t bytes, int file) {
    const int access = kProtect && access_depth_ == 0 ? PROT_NONE : PROT_READ | PROT_WRITE;
    return mmap(start, bytes, access, MAP_SHARED | MAP_FIXED, file, 0) != MAP_FAILED;
  }
  bool move_to_file(Array& array, uint8_t* address) {
    const size_t bytes = array.mapped_bytes - kPage;
    const int file = memfd_create("nds-device-memory", MFD_CLOEXEC);
    void* const copy = file >= 0 && ftruncate(file, static_cast<off_t>(bytes)) == 0
                           ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
                           : MAP_FAILED;
    bool is_moved = copy != MAP_FAILED;
    if (is_moved) {
      __asan_unpoison_memory_region(array.mapping, bytes);
      mprotect(array.mapping, bytes, PROT_READ | PROT_WRITE);
      std::memcpy(copy, array.mapping, bytes);
      munmap(copy, bytes);
      is_moved = map_file(array.mapping, bytes, file);
      poison_edges(array, address);
    }
    if (!is_moved && file >= 0) ::close(file);
    array.file = is_moved ? file : -1;
    return is_moved;
  }
  static void poison_edges(const Array& array, uint8_t* address) {
    __asan_poison_memory_region(array.mapping, static_cast<size_t>(address - array.mapping));
    __asan_poison_memory_region(address + array.bytes, array.padded_bytes - array.bytes);
  }
  void unmap(std::map<uint8_t*, Array>::iterator found) {
    const Array array = found->second;
    arrays_.erase(found);
    __asan_unpoison_memory_region(array.mapping, array.mapped_bytes);
    munmap(array.mapping, array.mapped_bytes);
    if (array.file >= 0) ::close(array.file);
  }

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
