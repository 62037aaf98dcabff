// One connection between two leaders: authenticated frames over a socket that never blocks.
#include "comm/mesh_link.h"

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace nds::comm {
namespace {

constexpr size_t kMacBytes = sizeof(Mac);
constexpr size_t kMaxFrame = sizeof(FrameHeader) + kFrameBytes + kMacBytes;

}  // namespace

MeshLink::MeshLink(Descriptor socket, int my_node, int peer_node, const LinkKeys& keys)
    : socket_(std::move(socket)),
      my_node_(my_node),
      peer_node_(peer_node),
      keys_(keys),
      out_(kMaxFrame),
      in_(2 * kMaxFrame) {}

void MeshLink::stage(FrameHeader header) {
  header.sender = static_cast<uint32_t>(my_node_);
  header.sequence = next_out_++;
  std::memcpy(out_.data(), &header, sizeof(header));
  const size_t size = sizeof(header) + header.length;
  const Mac mac = siphash128(keys_.outgoing, out_.data(), static_cast<int64_t>(size));
  std::memcpy(out_.data() + size, mac.data(), kMacBytes);
  out_begin_ = 0;
  out_end_ = size + kMacBytes;
}

void MeshLink::Failure::check() const {
  if (code != nullptr) throw Error(code, text);
}

bool MeshLink::flush() {
  out_failure_.check();
  bool any = false;
  while (has_unsent()) {
    const ssize_t sent = send_some(socket_, out_.data() + out_begin_, out_end_ - out_begin_);
    if (sent == 0) break;
    if (sent < 0) {
      out_failure_ = {"ERR_CLOSED", std::string("the connection failed: ") + std::strerror(errno)};
      out_failure_.check();
    }
    out_begin_ += static_cast<size_t>(sent);
    any = true;
  }
  return any;
}

bool MeshLink::fill() {
  in_failure_.check();
  if (in_begin_ == in_end_) in_begin_ = in_end_ = 0;
  if (in_.size() - in_begin_ < kMaxFrame) {
    std::memmove(in_.data(), in_.data() + in_begin_, in_end_ - in_begin_);
    in_end_ -= in_begin_;
    in_begin_ = 0;
  }
  if (in_end_ == in_.size()) return false;
  const ssize_t received = receive_some(socket_, in_.data() + in_end_, in_.size() - in_end_);
  if (received < 0) {
    in_failure_ = {"ERR_CLOSED", errno == 0 ? "it closed the connection"
                                            : std::string("the connection failed: ") + std::strerror(errno)};
    in_failure_.check();
  }
  in_end_ += static_cast<size_t>(received);
  return received > 0;
}

void MeshLink::refuse(const std::string& expected, const std::string& received) {
  in_failure_ = {"ERR_PROTOCOL",
                 "Expected " + expected + " from node " + std::to_string(peer_node_) + " but received " + received};
  out_failure_ = in_failure_;
  // What follows cannot be told from garbage.
  in_begin_ = in_end_ = 0;
  socket_.reset();
  in_failure_.check();
  __builtin_unreachable();
}

const FrameHeader* MeshLink::front() {
  if (has_front_) return &front_;
  const size_t available = in_end_ - in_begin_;
  if (available < sizeof(front_)) return nullptr;
  const uint8_t* const frame = in_.data() + in_begin_;
  std::memcpy(&front_, frame, sizeof(front_));
  if (front_.length > kFrameBytes)
    refuse("a frame of at most " + std::to_string(kFrameBytes) + " bytes", std::to_string(front_.length));
  const size_t size = sizeof(front_) + front_.length;
  if (available < size + kMacBytes) return nullptr;
  Mac mac;
  std::memcpy(mac.data(), frame + size, kMacBytes);
  if (!same_mac(mac, siphash128(keys_.incoming, frame, static_cast<int64_t>(size))))
    refuse("an authentic frame", "one with another MAC");
  if (front_.sequence != next_in_)
    refuse("frame " + std::to_string(next_in_), "frame " + std::to_string(front_.sequence));
  if (front_.sender != static_cast<uint32_t>(peer_node_))
    refuse("a frame of its own", "one of node " + std::to_string(front_.sender));
  if (front_.kind != static_cast<uint32_t>(FrameKind::data) &&
      front_.kind != static_cast<uint32_t>(FrameKind::departure))
    refuse("a known kind of frame", std::to_string(front_.kind));
  next_in_++;
  has_front_ = true;
  return &front_;
}

void MeshLink::pop() {
  in_begin_ += sizeof(front_) + front_.length + kMacBytes;
  has_front_ = false;
}

}  // namespace nds::comm
