// The failure of the emulated devices, one per process: sticky, as a failed launch is on a device.
#pragma once
#include <atomic>
#include <mutex>
#include <set>
#include <string>

namespace simt {

class Failure {
 public:
  bool is_set() const { return text_ != nullptr; }
  const char* text() const { return text_; }  // null if nothing failed; never freed
  // Keeps the first failure: later ones are consequences.
  void set(const std::string& text) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (text_ == nullptr) text_ = texts_.insert(text).first->c_str();
  }
  void clear() { text_ = nullptr; }

 private:
  std::mutex mutex_;
  std::set<std::string> texts_;  // callers of cudaGetErrorString hold pointers into it
  std::atomic<const char*> text_{nullptr};
};

inline Failure& failure() {
  static Failure* const only = new Failure;  // outlives static destructors that free device memory
  return *only;
}

}  // namespace simt
