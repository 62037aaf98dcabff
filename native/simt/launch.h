// Kernel launches.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <tuple>

#include "simt/runtime.h"

namespace simt {

// Where a launch stands: its stream, and whether it may start while the launch before it runs (programmatic dependent
// launch). Then its kernel must call wait_for_previous().
struct LaunchPlace {
  LaunchPlace(cudaStream_t stream, bool overlap_previous = false)
      : stream(stream), overlap_previous(overlap_previous) {}
  cudaStream_t stream;
  bool overlap_previous;
};

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;
  LaunchPlace place = nullptr;
};

// Order of threads and blocks: 0 = in order, 1 = reversed, else the seed of a random order. SIMT_SEED by default.
void set_schedule(uint64_t seed);

struct Counters {
  uint64_t threads = 0;
  uint64_t switches = 0;
};
Counters counters();  // of this OS thread

// Why no device would accept the shape; empty if one would.
std::string shape_error(const LaunchShape& shape);
// Runs `thread` as each thread of the grid. Returns null, or the error, valid until the next call.
const char* run_grid(const LaunchShape& shape, const std::function<void()>& thread);

cudaError_t enqueue_grid(const LaunchShape& shape, std::function<void()> thread);

template <typename... Params, typename... Args>
cudaError_t launch(void (*kernel)(Params...), const LaunchShape& shape, Args&&... args) {
  const std::tuple<Params...> params(static_cast<Params>(args)...);
  return enqueue_grid(shape, [kernel, params] { std::apply(kernel, params); });
}

}  // namespace simt
