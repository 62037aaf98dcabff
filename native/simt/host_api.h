// What the parts of CUDA's host API share: this thread's device and errors, and checks of streams.
#pragma once
#include <mutex>
#include <string>
#include <utility>

#include "simt/runtime.h"
#include "simt/stream.h"

namespace simt {

inline constinit thread_local int current_device = 0;
inline constinit thread_local cudaError_t last_error = cudaSuccess;  // not sticky
inline constinit thread_local int num_captures = 0;                  // begun by this thread and not ended

inline cudaError_t status() { return failure().is_set() ? cudaErrorLaunchFailure : cudaSuccess; }

inline cudaError_t refuse(const std::string& why) {
  failure().set(why);
  return cudaErrorInvalidValue;
}

// A failure that is not sticky.
inline cudaError_t fail_once(cudaError_t error) { return last_error = error; }

// Whether this thread captures a graph, which the call would invalidate; if so, sets the failure.
inline bool is_capturing(const char* call) {
  if (num_captures == 0) return false;
  failure().set(std::string(call) + " while this thread captures a graph");
  return true;
}

// Whether the stream exists; if not, sets the failure.
inline bool is_stream(Stream* stream, const char* call) {
  if (stream == nullptr) failure().set(std::string(call) + ": expected a stream but received the default stream");
  if (stream == nullptr) return false;
  if (registry().has(stream)) return true;
  failure().set(std::string(call) + ": the stream does not exist, or no longer");
  return false;
}

inline cudaError_t append(Stream& stream, Work work) {
  if (stream.capture != nullptr) {
    stream.capture->work.push_back(std::move(work));
  } else {
    const std::lock_guard<std::mutex> lock(stream.mutex);
    stream.queue.push_back(std::move(work));
    stream.num_enqueued++;
  }
  return status();
}

}  // namespace simt
