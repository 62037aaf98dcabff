// Streams of bytes from each rank of a host to the others, over shared memory.
#pragma once
#include <algorithm>
#include <cstdint>

#include "comm/shm_lockstep.h"

namespace nds::comm {

constexpr int64_t kLineFloats = 16;  // of a cache line

// Streams sizes[r] bytes of each rank r to the others, one slot per phase: pack(begin, end, outbox) on the rank itself,
// unpack(r, begin, end, inbox) on the others.
template <typename Pack, typename Unpack>
void stream(Lockstep& lockstep, const int64_t* sizes, Pack pack, Unpack unpack) {
  const int rank = lockstep.rank(), world_size = lockstep.world_size();
  const int64_t longest = *std::max_element(sizes, sizes + world_size);
  int64_t begin = 0;
  do {
    const auto piece_end = [&](int r) { return std::min(sizes[r], begin + kSlotBytes); };
    const int64_t bytes = std::max(int64_t{0}, piece_end(rank) - begin);
    if (bytes > 0) pack(begin, begin + bytes, lockstep.outbox());
    lockstep.publish(bytes);
    for (int r = 0; r < world_size; r++) {
      if (r == rank) continue;
      const uint8_t* inbox = lockstep.inbox(r);
      if (begin < piece_end(r)) unpack(r, begin, piece_end(r), inbox);
    }
    begin += kSlotBytes;
  } while (begin < longest);
}

}  // namespace nds::comm
