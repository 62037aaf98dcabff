// A cheap 64-bit fingerprint of bytes, by which ranks detect that they diverged. Not cryptographic.
#include "core/plan/step_hash.h"

#include <cstring>
#include <vector>

namespace nds {
namespace {

constexpr uint64_t kPrime1 = 0x9e3779b185ebca87u, kPrime2 = 0xc2b2ae3d27d4eb4fu, kPrime3 = 0x165667b19e3779f9u;

uint64_t rotate(uint64_t value, int bits) { return value << bits | value >> (64 - bits); }

uint64_t mix(uint64_t lane, uint64_t word) { return rotate(lane + word * kPrime2, 31) * kPrime1; }

uint64_t read_word(const uint8_t* from, size_t num_bytes) {
  uint64_t word = 0;
  std::memcpy(&word, from, num_bytes);
  return word;
}

template <typename T>
uint64_t hash_vector(const std::vector<T>& values, uint64_t seed) {
  return hash_bytes(values.data(), values.size() * sizeof(T), seed);
}

}  // namespace

uint64_t hash_bytes(const void* data, size_t num_bytes, uint64_t seed) {
  const uint8_t* next = static_cast<const uint8_t*>(data);
  uint64_t lanes[4] = {seed + kPrime1, seed + kPrime2, seed, seed - kPrime1};
  size_t left = num_bytes;
  for (; left >= 32; left -= 32, next += 32) {
    for (int i = 0; i < 4; i++) lanes[i] = mix(lanes[i], read_word(next + i * 8, 8));
  }
  uint64_t hash = num_bytes;
  for (const uint64_t lane : lanes) hash = (hash ^ mix(0, lane)) * kPrime1 + kPrime3;
  while (left > 0) {
    const size_t taken = left < 8 ? left : 8;
    hash = rotate(hash ^ mix(0, read_word(next, taken)), 27) * kPrime1 + kPrime3;
    next += taken;
    left -= taken;
  }
  hash = (hash ^ hash >> 33) * kPrime2;
  hash = (hash ^ hash >> 29) * kPrime3;
  return hash ^ hash >> 32;
}

uint64_t hash_output(const StepResult& result) {
  const uint64_t tokens = hash_vector(result.token_ids, hash_vector(result.num_tokens, 0));
  return hash_vector(result.hidden, hash_vector(result.logits, tokens));
}

}  // namespace nds
