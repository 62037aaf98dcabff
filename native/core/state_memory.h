// A mapping of the memory in which this host's ranks tell their launcher what they are doing.
#pragma once
#include <cstddef>

#include "core/progress.h"

namespace nds {

class StateMemory {
 public:
  // fd: a file with a StateBlock for each local rank; -1 = none. @throws Error ERR_SYSTEM.
  StateMemory(int fd, int local_rank);
  ~StateMemory();
  StateMemory(const StateMemory&) = delete;
  StateMemory& operator=(const StateMemory&) = delete;

  // Valid as long as the mapping.
  Progress progress() const { return progress_; }

 private:
  void* base_ = nullptr;
  size_t size_ = 0;
  Progress progress_;
};

}  // namespace nds
