// Lazy streams: queues of work that a waiting thread runs, one thread at a time.
#pragma once
#include <sched.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "simt/device_memory.h"
#include "simt/failure.h"
#include "simt/runtime.h"
#include "simt/sanitizer.h"

namespace simt {

struct Graph {
  std::vector<Work> work;
};

struct Stream {
  explicit Stream(int device) : device(device) {}
  const int device;
  std::mutex mutex;  // guards queue and num_enqueued
  std::deque<Work> queue;
  uint64_t num_enqueued = 0;
  std::atomic<uint64_t> num_done{0};
  std::atomic<bool> is_running{false};  // a thread runs the front of the queue
  Graph* capture = nullptr;
  uint64_t capture_id = 0;  // unique in the process; 0: not capturing
};

struct Event {
  Stream* stream = nullptr;  // null: never recorded
  uint64_t ticket = 0;       // done once the stream's num_done reaches it
  uint64_t capture_id = 0;   // of the capture that recorded it; 0: none
  bool has_timing = false;
  std::shared_ptr<std::atomic<uint64_t>> done_at_ns;  // of the latest record; 0: not yet
};

// All streams. A destroyed stream stays allocated, since events may point to it, but its use is refused.
class Registry {
 public:
  Stream* add_stream(int device) {
    const std::lock_guard<std::mutex> lock(mutex_);
    all_.push_back(std::make_unique<Stream>(device));
    live_.insert(all_.back().get());
    return all_.back().get();
  }
  bool has(Stream* stream) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return live_.count(stream) > 0;
  }
  void remove(Stream* stream) {
    const std::lock_guard<std::mutex> lock(mutex_);
    live_.erase(stream);
  }
  std::set<Stream*> live_streams() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return live_;
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Stream>> all_;
  std::set<Stream*> live_;
};

inline Registry& registry() {
  static Registry* const only = new Registry;
  return *only;
}

// Runs the front of the queue. False if the queue is empty, the front has to wait, or another thread runs it.
inline bool run_front(Stream& stream) {
  if (stream.is_running.exchange(true)) return false;
  Work* front = nullptr;
  {
    const std::lock_guard<std::mutex> lock(stream.mutex);
    if (!stream.queue.empty()) front = &stream.queue.front();
  }
  bool is_done = false;
  if (front != nullptr) {
    __tsan_acquire(&stream);
    device_memory().set_access(true);
    is_done = failure().is_set() || (*front)();
    device_memory().set_access(false);
    __tsan_release(&stream);
  }
  if (is_done) {
    const std::lock_guard<std::mutex> lock(stream.mutex);
    stream.queue.pop_front();
    stream.num_done++;
  }
  stream.is_running = false;
  return is_done;
}

// Runs work in order until `ticket` is done. Without `wait`, returns false at work that has to wait for another stream
// or process, or that another thread runs.
inline bool drain(Stream& stream, uint64_t ticket, bool wait) {
  while (stream.num_done < ticket) {
    if (run_front(stream)) continue;
    if (!wait && stream.num_done < ticket) return false;
    sched_yield();
  }
  __tsan_acquire(&stream);
  return true;
}

inline bool drain(Stream& stream, bool wait) {
  uint64_t ticket;
  {
    const std::lock_guard<std::mutex> lock(stream.mutex);
    ticket = stream.num_enqueued;
  }
  return drain(stream, ticket, wait);
}

}  // namespace simt
