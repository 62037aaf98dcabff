// Seconds on a clock that never goes back and that all processes of a host share.
#pragma once
#include <chrono>

namespace nds {

inline double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace nds
