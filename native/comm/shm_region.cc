// Grows, maps and claims the memory that the ranks of one host share.
#include "comm/shm_region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "core/error.h"

namespace nds::comm {
namespace {

constexpr size_t kPageBytes = 4096;
constexpr uint32_t kMagic = 0x4853444e;  // "NDSH"
constexpr uint32_t kVersion = 2;  // layout version: raise with any change to RankBlock, kSlotBytes or the collectives

// First word of the file: magic, version and world size in one word, so that one compare-and-swap claims a fresh file.
uint64_t identity(int world_size) {
  return uint64_t{kMagic} | uint64_t{kVersion} << 32 | static_cast<uint64_t>(world_size) << 48;
}

std::string describe(uint64_t word) {
  if (static_cast<uint32_t>(word) != kMagic) return "something else";
  return "version " + std::to_string(word >> 32 & 0xffff) + " of " + std::to_string(word >> 48) + " ranks";
}

[[noreturn]] void fail(const std::string& expected, int fd, int error) {
  throw Error("ERR_SYSTEM", "Expected " + expected + " for shared memory (descriptor " + std::to_string(fd) +
                                ") but received: " + std::strerror(error));
}

// Reserves the pages too (Linux): otherwise a full /dev/shm raises SIGBUS in the middle of a collective.
void grow(int fd, size_t size) {
  struct stat status;
  if (fstat(fd, &status) != 0) fail("an open file", fd, errno);
  if (!S_ISREG(status.st_mode)) fail("a regular file", fd, EINVAL);
  const std::string expected = std::to_string(size) + " bytes";
#ifdef __linux__
  int result;
  do {
    result = fallocate(fd, 0, 0, static_cast<off_t>(size));
  } while (result != 0 && errno == EINTR);
  if (result != 0) fail(expected, fd, errno);
#else
  if (status.st_size < static_cast<off_t>(size) && ftruncate(fd, static_cast<off_t>(size)) != 0)
    fail(expected, fd, errno);
#endif
}

}  // namespace

ShmRegion::ShmRegion(int world_size) : world_size_(world_size) {
  if (world_size < 1 || world_size > kMaxRanks) {
    throw Error("ERR_INTERNAL", "Expected 1 to " + std::to_string(kMaxRanks) +
                                    " ranks for shared memory but received " + std::to_string(world_size));
  }
  block_bytes_ = (world_size * sizeof(RankBlock) + kPageBytes - 1) / kPageBytes * kPageBytes;
  size_ = kPageBytes + block_bytes_ + static_cast<size_t>(world_size) * 2 * kSlotBytes;
}

void ShmRegion::map(int fd, int flags) {
  void* mapped = mmap(nullptr, size_, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (mapped == MAP_FAILED) fail("a mapping of " + std::to_string(size_) + " bytes", fd, errno);
  base_ = static_cast<uint8_t*>(mapped);
  blocks_ = reinterpret_cast<RankBlock*>(base_ + kPageBytes);
  slots_ = base_ + kPageBytes + block_bytes_;
}

std::shared_ptr<ShmRegion> ShmRegion::of_one_rank() {
  std::shared_ptr<ShmRegion> region(new ShmRegion(1));
  region->map(-1, MAP_PRIVATE | MAP_ANONYMOUS);
  return region;
}

ShmRegion::ShmRegion(int fd, int world_size) : ShmRegion(world_size) {
  grow(fd, size_);
  int flags = MAP_SHARED;
#ifdef __linux__
  flags |= MAP_POPULATE;
#endif
  map(fd, flags);

  // Orders nothing: the file holds zeros but for this word, and ranks meet through their blocks.
  uint64_t found = 0;
  const uint64_t mine = identity(world_size);
  if (!reinterpret_cast<std::atomic<uint64_t>*>(base_)->compare_exchange_strong(found, mine) && found != mine) {
    throw Error("ERR_MISMATCH", "Expected shared memory in " + describe(mine) + " (descriptor " + std::to_string(fd) +
                                    ") but it holds " + describe(found));
  }
}

ShmRegion::~ShmRegion() {
  if (base_ != nullptr) munmap(base_, size_);
}

}  // namespace nds::comm
