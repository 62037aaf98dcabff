// SipHash-2-4 with 128 bits of output (Aumasson and Bernstein 2012): the authentication of frames between hosts.
#pragma once
#include <array>
#include <cstdint>

namespace nds::comm {

using Key = std::array<uint8_t, 16>;
using Mac = std::array<uint8_t, 16>;

Mac siphash128(const Key& key, const void* data, int64_t bytes);

// Comparison whose time does not depend on where they differ.
bool same_mac(const Mac& a, const Mac& b);

}  // namespace nds::comm
