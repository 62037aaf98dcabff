// Large zeroed memory on huge pages, and read-only mapped files.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace nds {

// Zero-filled anonymous memory. From 2 MiB on it is 2 MiB aligned, on huge pages if the system grants them; smaller
// buffers are page aligned. A page costs nothing until touched.
class HugeMemory {
 public:
  HugeMemory() = default;
  // `what` names the use in the ERR_SYSTEM error.
  HugeMemory(size_t bytes, const char* what);
  ~HugeMemory();
  HugeMemory(HugeMemory&& other) noexcept;
  HugeMemory& operator=(HugeMemory&& other) noexcept;

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void* mapping_ = nullptr;
  size_t mapping_size_ = 0;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

class MappedFile {
 public:
  // @throws Error ERR_CHECKPOINT naming the path.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  // Begins to read [offset, offset + num_bytes) from disk; whatever lies beyond the file is ignored.
  void prefetch(int64_t offset, int64_t num_bytes) const;
  // Takes its pages out of this process; they are mapped again when read.
  void drop_pages() const;

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace nds
