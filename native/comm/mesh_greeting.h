// What two leaders say to each other first, and what each proves by it.
//
//   connector → listener  Greeting of the connector
//   listener → connector  Greeting of the listener, its proof
//   connector → listener  its proof
//   listener → connector  a last proof: the connection is taken
//
// A proof, and a key of a direction, is the MAC of both greetings after one byte that says which it is.
#pragma once
#include <cstdint>
#include <cstring>

#include "comm/siphash.h"

namespace nds::comm {

constexpr uint32_t kMeshMagic = 0x4d53444e;  // "NDSM"
constexpr uint32_t kMeshVersion = 1;         // raise with any change to Greeting, FrameHeader or the exchanges

struct Greeting {
  uint32_t magic = kMeshMagic, version = kMeshVersion;
  uint32_t node = 0, num_nodes = 0;
  uint64_t epoch = 0;
  uint8_t nonce[16] = {};
};
static_assert(sizeof(Greeting) == 40, "the layout is the same on every host");

enum class Label : uint8_t { listener_proof = 1, connector_proof, taken, to_listener, to_connector };

// The two greetings of a connection, and what follows from them.
struct Transcript {
  Greeting connector, listener;

  Mac mac(const Key& key, Label label) const {
    uint8_t text[1 + 2 * sizeof(Greeting)];
    text[0] = static_cast<uint8_t>(label);
    std::memcpy(text + 1, &connector, sizeof(Greeting));
    std::memcpy(text + 1 + sizeof(Greeting), &listener, sizeof(Greeting));
    return siphash128(key, text, sizeof(text));
  }
};

}  // namespace nds::comm
