// How far an exchange with one peer has come.
#pragma once
#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "comm/leaders.h"

namespace nds::comm {

// A position in the bytes of a list of parts. P: ConstPart or Part.
template <typename P>
class PartsCursor {
 public:
  PartsCursor() = default;
  // parts: valid as long as this.
  explicit PartsCursor(const std::vector<P>& parts) : parts_(&parts) {
    for (const P& part : parts) total_ += part.bytes;
  }

  int64_t total() const { return total_; }
  int64_t left() const { return total_ - passed_; }

  // Passes the next `bytes` bytes: calls body(offset in them, address, length) along the parts. bytes <= left().
  template <typename Body>
  void pass(int64_t bytes, Body body) {
    for (int64_t passed = 0; passed < bytes;) {
      const P& part = (*parts_)[part_];
      const int64_t length = std::min(bytes - passed, part.bytes - offset_);
      if (length > 0) body(passed, static_cast<Byte*>(part.data) + offset_, static_cast<size_t>(length));
      passed += length;
      offset_ += length;
      if (offset_ == part.bytes) {
        part_++;
        offset_ = 0;
      }
    }
    passed_ += bytes;
  }

 private:
  using Byte = std::conditional_t<std::is_same_v<P, ConstPart>, const uint8_t, uint8_t>;

  const std::vector<P>* parts_ = nullptr;
  int64_t total_ = 0, passed_ = 0;
  size_t part_ = 0;     // current part
  int64_t offset_ = 0;  // in that part
};

struct Transfer {
  PartsCursor<ConstPart> sends;
  PartsCursor<Part> receives;
  bool has_staged = false;  // a first frame, which even an empty stream has
  bool has_received = false;
};

}  // namespace nds::comm
