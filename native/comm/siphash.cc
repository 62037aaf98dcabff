// SipHash-2-4 with 128 bits of output, as the authors' reference implementation defines it.
#include "comm/siphash.h"

#include <bit>
#include <cstring>

namespace nds::comm {
namespace {

static_assert(std::endian::native == std::endian::little, "words are read in the processor's order");

struct State {
  uint64_t v0, v1, v2, v3;

  void round() {
    v0 += v1;
    v1 = std::rotl(v1, 13) ^ v0;
    v0 = std::rotl(v0, 32);
    v2 += v3;
    v3 = std::rotl(v3, 16) ^ v2;
    v0 += v3;
    v3 = std::rotl(v3, 21) ^ v0;
    v2 += v1;
    v1 = std::rotl(v1, 17) ^ v2;
    v2 = std::rotl(v2, 32);
  }

  void absorb(uint64_t word) {
    v3 ^= word;
    round();
    round();
    v0 ^= word;
  }

  uint64_t squeeze() {
    for (int i = 0; i < 4; i++) round();
    return v0 ^ v1 ^ v2 ^ v3;
  }
};

uint64_t word_at(const uint8_t* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

}  // namespace

Mac siphash128(const Key& key, const void* data, int64_t bytes) {
  const uint8_t* in = static_cast<const uint8_t*>(data);
  const uint64_t k0 = word_at(key.data()), k1 = word_at(key.data() + 8);
  State state{k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d ^ 0xee, k0 ^ 0x6c7967656e657261,
              k1 ^ 0x7465646279746573};
  const uint8_t* const end = in + bytes / 8 * 8;
  for (; in < end; in += 8) state.absorb(word_at(in));
  uint64_t last = static_cast<uint64_t>(bytes) << 56;
  for (int64_t i = 0; i < bytes % 8; i++) last |= static_cast<uint64_t>(in[i]) << 8 * i;
  state.absorb(last);
  Mac mac;
  state.v2 ^= 0xee;
  const uint64_t low = state.squeeze();
  state.v1 ^= 0xdd;
  const uint64_t high = state.squeeze();
  std::memcpy(mac.data(), &low, 8);
  std::memcpy(mac.data() + 8, &high, 8);
  return mac;
}

bool same_mac(const Mac& a, const Mac& b) {
  uint8_t different = 0;
  for (size_t i = 0; i < a.size(); i++) different |= a[i] ^ b[i];
  return different == 0;
}

}  // namespace nds::comm
