// A 64-bit checksum at the speed of memory, against damaged files; no defence against forged ones.
#pragma once
#include <cstddef>
#include <cstdint>

namespace nds {

// Depends on every bit of data, on their order, on num_bytes and on seed. Any change within one 8-byte word is noticed;
// of other changes, all but one in 2^64.
uint64_t checksum(const uint8_t* data, size_t num_bytes, uint64_t seed);

}  // namespace nds
