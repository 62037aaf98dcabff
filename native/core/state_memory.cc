// A mapping of the memory in which this host's ranks tell their launcher what they are doing.
#include "core/state_memory.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "core/error.h"

namespace nds {

StateMemory::StateMemory(int fd, int local_rank) {
  if (fd < 0) return;
  // From the start: a mapping begins at a page.
  size_ = (static_cast<size_t>(local_rank) + 1) * sizeof(StateBlock);
  struct stat status;
  const bool is_whole = fstat(fd, &status) == 0 && status.st_size >= static_cast<off_t>(size_);
  // A shorter file would end the process at the first write.
  if (is_whole) base_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (!is_whole || base_ == MAP_FAILED) {
    throw Error("ERR_SYSTEM", "Expected a file of " + std::to_string(size_) +
                                  " bytes for the rank's state (descriptor " + std::to_string(fd) + ") but " +
                                  (is_whole ? std::string("received: ") + std::strerror(errno) : "it is none"));
  }
  progress_ = Progress(static_cast<StateBlock*>(base_) + local_rank);
}

StateMemory::~StateMemory() {
  if (base_ != nullptr) munmap(base_, size_);
}

}  // namespace nds
