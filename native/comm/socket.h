// TCP sockets that never block, never raise SIGPIPE and are not inherited, on Linux and macOS. Addresses are numeric.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <string>

namespace nds::comm {

// Owns a descriptor.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void reset(int fd = -1);

 private:
  int fd_;
};

// Listens on a free port of one local address. @throws Error ERR_SYSTEM, ERR_USAGE for an address of all interfaces.
Descriptor listen_on(const std::string& address, int& port);
// A connection that someone made; not open where none waits.
Descriptor accept_from(const Descriptor& listener);
// Starts to connect; not open, with the reason, where that fails at once.
Descriptor start_connect(const std::string& address, int port, std::string& reason);
// Empty once a started connection stands, else why it failed.
std::string connect_error(const Descriptor& socket);

// Bytes sent or received; 0 = none for now; -1 with errno for an error. The end of a stream is -1 with errno 0.
ssize_t send_some(const Descriptor& socket, const void* data, size_t bytes);
ssize_t receive_some(const Descriptor& socket, void* data, size_t bytes);

// Ends a poll() from another thread.
class WakePipe {
 public:
  WakePipe();  // @throws Error ERR_SYSTEM
  int read_end() const { return read_.get(); }
  void wake() const;   // from any thread
  void drain() const;  // forgets earlier wakes

 private:
  Descriptor read_, write_;
};

// Milliseconds of a steady clock.
int64_t now_ms();

}  // namespace nds::comm
