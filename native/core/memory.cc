// Large zeroed memory on huge pages, and read-only mapped files.
#include "core/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace nds {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

HugeMemory::HugeMemory(size_t bytes, const char* what) : size_(bytes) {
  if (bytes == 0) return;
  // Small buffers get ordinary pages: a huge page for each would waste more than it saves.
  const bool huge = bytes >= kHugePage;
  mapping_size_ = huge ? round_up(bytes, kHugePage) + kHugePage : round_up(bytes, 4096);
  mapping_ = mmap(nullptr, mapping_size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping_ == MAP_FAILED) {
    mapping_ = nullptr;
    throw Error("ERR_SYSTEM", "Expected " + std::to_string(bytes) + " bytes of memory for " + what +
                                  " but received: " + std::strerror(errno));
  }
  data_ = static_cast<uint8_t*>(mapping_);
  if (huge) {
    data_ = reinterpret_cast<uint8_t*>(round_up(reinterpret_cast<size_t>(mapping_), kHugePage));
#ifdef MADV_HUGEPAGE
    madvise(data_, round_up(bytes, kHugePage), MADV_HUGEPAGE);
#endif
  }
}

HugeMemory::~HugeMemory() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_size_);
}

HugeMemory::HugeMemory(HugeMemory&& other) noexcept { *this = std::move(other); }

HugeMemory& HugeMemory::operator=(HugeMemory&& other) noexcept {
  std::swap(mapping_, other.mapping_);
  std::swap(mapping_size_, other.mapping_size_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::MappedFile(const std::string& path) {
  const auto fail = [&path](const char* doing) {
    throw Error("ERR_CHECKPOINT",
                "Expected to " + std::string(doing) + " " + path + " but received: " + std::strerror(errno));
  };
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("open");
  struct stat info{};
  if (fstat(fd, &info) != 0) {
    close(fd);
    fail("read the size of");
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ > 0) {
    void* mapping = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapping == MAP_FAILED) {
      close(fd);
      fail("map");
    }
    data_ = static_cast<const uint8_t*>(mapping);
  }
  close(fd);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
}

void MappedFile::prefetch(int64_t offset, int64_t num_bytes) const {
  const auto size = static_cast<int64_t>(size_);
  constexpr int64_t kUnit = 65536;  // a multiple of every system's page
  const int64_t begin = std::clamp<int64_t>(offset, 0, size) / kUnit * kUnit;
  const int64_t end = std::clamp<int64_t>(offset + num_bytes, begin, size);
  if (end > begin) madvise(const_cast<uint8_t*>(data_) + begin, static_cast<size_t>(end - begin), MADV_WILLNEED);
}

void MappedFile::drop_pages() const {
  if (data_ != nullptr) madvise(const_cast<uint8_t*>(data_), size_, MADV_DONTNEED);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

}  // namespace nds
