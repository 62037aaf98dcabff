// Monotonic time in seconds, on one clock for all processes of a host.
#pragma once
#include <chrono>

namespace nds {

inline double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace nds
