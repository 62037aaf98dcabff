// TCP sockets that never block, never raise SIGPIPE and are not inherited, on Linux and macOS.
#include "comm/socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>

#include "core/error.h"

namespace nds::comm {
namespace {

// Seconds without traffic before a peer is probed, between probes, and probes without an answer that end a connection.
constexpr int kKeepIdle = 10, kKeepInterval = 5, kKeepCount = 6;
constexpr int kBacklog = 128;

#ifdef MSG_NOSIGNAL
constexpr int kSendFlags = MSG_NOSIGNAL;
#else
constexpr int kSendFlags = 0;
#endif

// Private from the start where the system can: another thread may start a process at any time.
int open_socket(int family) {
#ifdef SOCK_CLOEXEC
  return socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
#else
  return socket(family, SOCK_STREAM, 0);
#endif
}

int accept_one(int listener) {
#ifdef SOCK_CLOEXEC
  return accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
#else
  return accept(listener, nullptr, nullptr);
#endif
}

bool make_private(int fd) {
  return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0;
}

void set_option(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof(value)); }

void tune(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
#ifdef TCP_KEEPIDLE
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepIdle);
#elif defined(TCP_KEEPALIVE)
  set_option(fd, IPPROTO_TCP, TCP_KEEPALIVE, kKeepIdle);
#endif
#ifdef TCP_KEEPINTVL
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepInterval);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, kKeepCount);
#endif
#ifdef SO_NOSIGPIPE
  set_option(fd, SOL_SOCKET, SO_NOSIGPIPE, 1);
#endif
}

using Addresses = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;

// An address alone: to look a name up would block, whatever was aborted.
Addresses resolve(const std::string& address, int port, std::string& reason) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int status = getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (status != 0) reason = gai_strerror(status);
  return Addresses(found, [](addrinfo* list) {
    if (list != nullptr) freeaddrinfo(list);
  });
}

bool is_any(const sockaddr* address) {
  if (address->sa_family == AF_INET)
    return reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr == htonl(INADDR_ANY);
  const in6_addr& six = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
  constexpr uint8_t kNone[4] = {};
  return IN6_IS_ADDR_UNSPECIFIED(&six) ||
         (IN6_IS_ADDR_V4MAPPED(&six) && std::memcmp(six.s6_addr + 12, kNone, sizeof(kNone)) == 0);
}

int port_of(int fd) {
  sockaddr_storage bound{};
  socklen_t length = sizeof(bound);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length) != 0) return -1;
  return ntohs(bound.ss_family == AF_INET ? reinterpret_cast<const sockaddr_in*>(&bound)->sin_port
                                          : reinterpret_cast<const sockaddr_in6*>(&bound)->sin6_port);
}

}  // namespace

void Descriptor::reset(int fd) {
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
}

Descriptor listen_on(const std::string& address, int& port) {
  std::string reason;
  const Addresses found = resolve(address, 0, reason);
  if (found != nullptr) {
    if (is_any(found->ai_addr))
      throw Error("ERR_USAGE", "Expected the address of one interface to listen on but received " + address);
    Descriptor socket(open_socket(found->ai_family));
    if (socket.is_open() && make_private(socket.get()) && bind(socket.get(), found->ai_addr, found->ai_addrlen) == 0 &&
        listen(socket.get(), kBacklog) == 0) {
      port = port_of(socket.get());
      return socket;
    }
    reason = std::strerror(errno);
  }
  throw Error("ERR_SYSTEM", "Expected to listen on " + address + " but received: " + reason);
}

Descriptor accept_from(const Descriptor& listener) {
  Descriptor socket(accept_one(listener.get()));
  if (!socket.is_open() || !make_private(socket.get())) return Descriptor();
  tune(socket.get());
  return socket;
}

Descriptor start_connect(const std::string& address, int port, std::string& reason) {
  const Addresses found = resolve(address, port, reason);
  if (found == nullptr) return Descriptor();
  Descriptor socket(open_socket(found->ai_family));
  if (socket.is_open() && make_private(socket.get())) {
    tune(socket.get());
    if (connect(socket.get(), found->ai_addr, found->ai_addrlen) == 0 || errno == EINPROGRESS) return socket;
  }
  reason = std::strerror(errno);
  return Descriptor();
}

std::string connect_error(const Descriptor& socket) {
  int error = 0;
  socklen_t length = sizeof(error);
  if (getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  return error == 0 ? "" : std::strerror(error);
}

ssize_t send_some(const Descriptor& socket, const void* data, size_t bytes) {
  const ssize_t sent = send(socket.get(), data, bytes, kSendFlags);
  return sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) ? 0 : sent;
}

ssize_t receive_some(const Descriptor& socket, void* data, size_t bytes) {
  const ssize_t received = recv(socket.get(), data, bytes, 0);
  if (received > 0) return received;
  if (received < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -1;
  errno = 0;
  return -1;
}

WakePipe::WakePipe() {
  int ends[2];
  if (pipe(ends) != 0) throw Error("ERR_SYSTEM", std::string("Expected a pipe but received: ") + std::strerror(errno));
  read_.reset(ends[0]);
  write_.reset(ends[1]);
  make_private(ends[0]);
  make_private(ends[1]);
}

void WakePipe::wake() const {
  const char byte = 0;
  // A full pipe wakes too.
  if (write(write_.get(), &byte, 1) < 0) return;
}

void WakePipe::drain() const {
  char bytes[64];
  while (read(read_.get(), bytes, sizeof(bytes)) > 0) {
  }
}

int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace nds::comm
