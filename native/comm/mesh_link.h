// One connection between two leaders: authenticated frames over a socket that never blocks.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/collective.h"
#include "comm/siphash.h"
#include "comm/socket.h"

namespace nds::comm {

enum class FrameKind : uint32_t { data = 1, departure = 2 };

// First bytes of a frame; `length` bytes of payload follow, and a MAC of both.
struct FrameHeader {
  uint32_t length;
  uint32_t kind;      // a FrameKind
  uint32_t session;   // number of the communicator on this mesh, from 1
  uint32_t sender;    // node
  uint64_t sequence;  // of the frame, among those of its direction
  int64_t step;
  Description collective;
  uint64_t total;  // bytes of the exchange that the frame is a part of
  uint32_t index;  // of that exchange in its collective
  uint32_t departure;
};
static_assert(sizeof(FrameHeader) == 72, "the layout is the same on every host");

constexpr int64_t kFrameBytes = 64 * 1024;  // max payload

// Keys of the two directions.
struct LinkKeys {
  Key outgoing, incoming;
};

class MeshLink {
 public:
  MeshLink(Descriptor socket, int my_node, int peer_node, const LinkKeys& keys);

  int fd() const { return socket_.get(); }

  // Room for the payload of the next frame. Only while nothing is unsent.
  uint8_t* payload() { return out_.data() + sizeof(FrameHeader); }
  // Frames header.length bytes of payload(); fills in sender and sequence.
  void stage(FrameHeader header);
  bool has_unsent() const { return out_begin_ < out_end_; }
  // Sends what it can. Returns whether any byte went. @throws Error ERR_CLOSED for a connection that ended, which may
  // still hold frames to read. So do all later calls.
  bool flush();

  // Reads what has come. Returns whether any byte did. @throws Error ERR_CLOSED as flush().
  bool fill();
  // The next whole frame, or null; its payload follows the header. @throws Error ERR_PROTOCOL, as do all later calls.
  const FrameHeader* front();
  const uint8_t* front_payload() const { return in_.data() + in_begin_ + sizeof(FrameHeader); }
  void pop();

 private:
  // Why one direction of the connection cannot be used.
  struct Failure {
    const char* code = nullptr;
    std::string text;
    void check() const;
  };
  [[noreturn]] void refuse(const std::string& expected, const std::string& received);

  Descriptor socket_;
  const int my_node_, peer_node_;
  const LinkKeys keys_;
  std::vector<uint8_t> out_, in_;
  size_t out_begin_ = 0, out_end_ = 0;
  size_t in_begin_ = 0, in_end_ = 0;
  FrameHeader front_{};
  bool has_front_ = false;
  uint64_t next_out_ = 0, next_in_ = 0;
  Failure out_failure_, in_failure_;
};

}  // namespace nds::comm
