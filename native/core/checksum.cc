// A 64-bit checksum at the speed of memory: eight chains of words, each step of which is invertible.
#include "core/checksum.h"

#include <algorithm>
#include <cstring>

namespace nds {
namespace {

constexpr int kLanes = 8;
constexpr size_t kBlock = kLanes * sizeof(uint64_t);
constexpr uint64_t kFactor = 0x9e3779b97f4a7c15;  // odd: products are invertible

// The rotation brings the high bits of a product, where its differences gather, to where the next one spreads them.
uint64_t step(uint64_t state, uint64_t word) {
  const uint64_t product = (state ^ word) * kFactor;
  return product << 31 | product >> 33;
}

}  // namespace

uint64_t checksum(const uint8_t* data, size_t num_bytes, uint64_t seed) {
  uint64_t lanes[kLanes], words[kLanes];
  for (int i = 0; i < kLanes; i++) lanes[i] = step(seed, static_cast<uint64_t>(i) + 1);
  for (size_t begin = 0; begin < num_bytes; begin += kBlock) {
    const size_t count = std::min(kBlock, num_bytes - begin);
    if (count < kBlock) std::memset(words, 0, kBlock);
    std::memcpy(words, data + begin, count);
    for (int i = 0; i < kLanes; i++) lanes[i] = step(lanes[i], words[i]);
  }
  uint64_t sum = step(seed, num_bytes);
  for (const uint64_t lane : lanes) sum = step(sum, lane);
  return step(sum, 0);
}

}  // namespace nds
