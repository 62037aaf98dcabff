// What ranks must agree on when they meet in a collective, and how messages name it.
#include "comm/collective.h"

#include <cstdio>
#include <cstring>

namespace nds::comm {
namespace {

const char* const kCodes[] = {"ERR_CLOSED", "ERR_STEP_TIMEOUT", "ERR_MISMATCH", "ERR_PROTOCOL"};

}  // namespace

const char* departure_code(uint32_t departure) { return kCodes[departure % 4]; }

Departure departure_of(const char* code) {
  for (uint32_t i = 1; i < 4; i++) {
    if (std::strcmp(code, kCodes[i]) == 0) return static_cast<Departure>(i);
  }
  return kClosed;
}

const char* departure_verb(uint32_t departure) {
  static const char* const kVerbs[] = {" left", " timed out", " met another collective", " received a bad frame"};
  return kVerbs[departure % 4];
}

std::string describe(const Description& collective) {
  static const char* const kNames[] = {"no collective", "all-reduce", "row exchange", "all-gather"};
  const std::string name = collective.kind < 4 ? kNames[collective.kind] : "an unknown collective";
  return name + " " + std::to_string(collective.sequence) + " of " + std::to_string(collective.bytes) + " bytes";
}

std::string place_of(int64_t step, const Description& collective) {
  return (step < 0 ? "loading" : "step " + std::to_string(step)) + ", " + describe(collective) + ": ";
}

std::string seconds_text(int64_t milliseconds) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", static_cast<double>(milliseconds) / 1000);
  return text;
}

uint32_t layout_hash(const void* words, int64_t bytes) {
  uint32_t value = 2166136261u;
  for (int64_t i = 0; i + 4 <= bytes; i += 4) {
    uint32_t word;
    std::memcpy(&word, static_cast<const uint8_t*>(words) + i, 4);
    value = (value ^ word) * 16777619u;
  }
  return value;
}

}  // namespace nds::comm
