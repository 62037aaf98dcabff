// A rank's packed matrices as one file: its threads read, check and write it in segments.
#include "cpu/packed_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <vector>

#include "core/checksum.h"
#include "core/program/packed_linear.h"
#include "core/round_up.h"

namespace nds::cpu {
namespace {

constexpr char kMagic[8] = {'N', 'D', 'S', 'S', 'H', 'A', 'R', 'D'};
constexpr int64_t kSegment = int64_t{1} << 20;
constexpr int64_t kPage = 4096;
static_assert(sizeof(PackedFileHeader) == 72);

// An open file, closed at the end of its scope.
struct File {
  File(const std::string& path, int flags) : fd(open(path.c_str(), flags | O_CLOEXEC, 0644)) {}
  ~File() {
    if (fd >= 0) close(fd);
  }
  File(const File&) = delete;
  const int fd;
};

// Calls transfer(done) until it has moved num_bytes in all. 0, or an errno: EIO where the file ends early.
template <typename Transfer>
int whole(int64_t num_bytes, Transfer transfer) {
  for (int64_t done = 0; done < num_bytes;) {
    const ssize_t count = transfer(done);
    if (count == 0) return EIO;
    if (count < 0 && errno != EINTR) return errno;
    if (count > 0) done += count;
  }
  return 0;
}

int read_at(int fd, void* to, int64_t num_bytes, int64_t offset) {
  return whole(num_bytes, [&](int64_t done) {
    return pread(fd, static_cast<uint8_t*>(to) + done, static_cast<size_t>(num_bytes - done), offset + done);
  });
}

int write_at(int fd, const void* from, int64_t num_bytes, int64_t offset) {
  return whole(num_bytes, [&](int64_t done) {
    return pwrite(fd, static_cast<const uint8_t*>(from) + done, static_cast<size_t>(num_bytes - done), offset + done);
  });
}

int64_t num_segments(int64_t num_bytes) { return (num_bytes + kSegment - 1) / kSegment; }

uint64_t segment_checksum(const uint8_t* data, int64_t num_bytes, int64_t segment) {
  const int64_t begin = segment * kSegment;
  return checksum(data + begin, static_cast<size_t>(std::min(kSegment, num_bytes - begin)),
                  static_cast<uint64_t>(segment));
}

// Where the checksums of the segments begin, and where the data does.
int64_t checksums_offset(int64_t label_bytes) {
  return round_up(static_cast<int64_t>(sizeof(PackedFileHeader)) + label_bytes, 8);
}
int64_t data_offset(int64_t label_bytes, int64_t num_bytes) {
  return round_up(checksums_offset(label_bytes) + num_segments(num_bytes) * 8, kPage);
}

uint64_t head_check(std::vector<uint8_t> head) {
  std::memset(head.data() + offsetof(PackedFileHeader, check), 0, sizeof(uint64_t));
  return checksum(head.data(), head.size(), 0);
}

// Runs body(segment) -> errno for every segment on all threads, until one fails. 0 or an errno.
template <typename Body>
int for_segments(int64_t num_bytes, ThreadPool& pool, Body body) {
  std::atomic<int> failure{0};
  std::atomic<int64_t> next{0};
  pool.run([&](int) {
    for (int64_t i = next++; i < num_segments(num_bytes) && failure == 0; i = next++) {
      if (const int error = body(i)) failure = error;
    }
  });
  return failure;
}

// The bytes before the data. Empty unless they are whole, and of this key and size.
std::vector<uint8_t> read_head(int fd, const PackedFileSpec& spec, int64_t num_bytes) {
  PackedFileHeader header;
  if (read_at(fd, &header, sizeof(header), 0) != 0) return {};
  const bool is_ours =
      std::memcmp(header.magic, kMagic, sizeof(kMagic)) == 0 && header.layout == kPackedLayout &&
      spec.key.size() == sizeof(header.key) && std::memcmp(header.key, spec.key.data(), sizeof(header.key)) == 0 &&
      header.data_bytes == num_bytes && header.data_offset == data_offset(header.label_bytes, num_bytes);
  if (!is_ours || lseek(fd, 0, SEEK_END) != header.data_offset + num_bytes) return {};
  std::vector<uint8_t> head(static_cast<size_t>(header.data_offset));
  if (read_at(fd, head.data(), header.data_offset, 0) != 0 || head_check(head) != header.check) return {};
  return head;
}

}  // namespace

std::string read_packed_file(const PackedFileSpec& spec, uint8_t* data, int64_t num_bytes, ThreadPool& pool,
                             const OnLoaded& on_loaded) {
  const File file(spec.read_path, O_RDONLY);
  if (file.fd < 0) return std::strerror(errno);
#ifdef POSIX_FADV_WILLNEED
  posix_fadvise(file.fd, 0, 0, POSIX_FADV_WILLNEED);
#endif
  const std::vector<uint8_t> head = read_head(file.fd, spec, num_bytes);
  if (head.empty()) return "it is truncated, damaged or of another load";
  PackedFileHeader header;
  std::memcpy(&header, head.data(), sizeof(header));
  const uint8_t* const checksums = head.data() + checksums_offset(header.label_bytes);
  std::atomic<bool> is_whole{true};
  const int error = for_segments(num_bytes, pool, [&](int64_t i) {
    const int64_t begin = i * kSegment, count = std::min(kSegment, num_bytes - begin);
    if (const int failure = read_at(file.fd, data + begin, count, header.data_offset + begin)) return failure;
    uint64_t expected;
    std::memcpy(&expected, checksums + i * 8, 8);
    if (segment_checksum(data, num_bytes, i) != expected) is_whole = false;
    on_loaded(count);
    return is_whole ? 0 : EIO;
  });
  if (!is_whole) return "its bytes differ from their checksums";
  return error == 0 ? "" : std::strerror(error);
}

std::string write_packed_file(const PackedFileSpec& spec, const uint8_t* data, int64_t num_bytes, ThreadPool& pool,
                              const OnLoaded& on_loaded) {
  const File file(spec.write_path, O_WRONLY | O_CREAT | O_EXCL);
  if (file.fd < 0) return std::strerror(errno);
  PackedFileHeader header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.layout = kPackedLayout;
  header.label_bytes = static_cast<uint32_t>(spec.label.size());
  std::memcpy(header.key, spec.key.data(), std::min(sizeof(header.key), spec.key.size()));
  header.data_offset = data_offset(header.label_bytes, num_bytes);
  header.data_bytes = num_bytes;
  std::vector<uint8_t> head(static_cast<size_t>(header.data_offset));
  uint8_t* const checksums = head.data() + checksums_offset(header.label_bytes);
  int error = for_segments(num_bytes, pool, [&](int64_t i) {
    const int64_t begin = i * kSegment, count = std::min(kSegment, num_bytes - begin);
    const uint64_t sum = segment_checksum(data, num_bytes, i);
    std::memcpy(checksums + i * 8, &sum, 8);
    on_loaded(0);
    return write_at(file.fd, data + begin, count, header.data_offset + begin);
  });
  std::memcpy(head.data(), &header, sizeof(header));
  std::memcpy(head.data() + sizeof(header), spec.label.data(), spec.label.size());
  header.check = head_check(head);
  std::memcpy(head.data(), &header, sizeof(header));
  // Last: a file whose writer was killed has no header.
  if (error == 0) error = write_at(file.fd, head.data(), header.data_offset, 0);
  if (error == 0) return "";
  unlink(spec.write_path.c_str());
  return std::strerror(error);
}

}  // namespace nds::cpu
