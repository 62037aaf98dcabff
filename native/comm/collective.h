// What ranks must agree on when they meet in a collective, and how messages name it.
#pragma once
#include <cstdint>
#include <string>

namespace nds::comm {

enum class CollectiveKind : uint32_t { all_reduce = 1, exchange_rows = 2, all_gather = 3 };

// Published with a phase's data, so that ranks in different collectives notice.
struct Description {
  uint32_t sequence;  // number of the collective, counted from the communicator's first
  uint32_t kind;
  uint64_t bytes;
  uint32_t layout;  // hash of the spread of the bytes over ranks
  uint32_t failed;  // 0, or 1 where an error stands in place of the data: the rank gives up, and says why
};

inline bool same_collective(const Description& a, const Description& b) {
  return a.sequence == b.sequence && a.kind == b.kind && a.bytes == b.bytes && a.layout == b.layout;
}

// Why a rank left. Its peers fail with the same code.
enum Departure : uint32_t { kClosed = 0, kTimedOut = 1, kMismatched = 2, kBrokeProtocol = 3 };

// The error code of a departure, and the other way round; any other code counts as kClosed.
const char* departure_code(uint32_t departure);
Departure departure_of(const char* code);
// " left", " timed out", …
const char* departure_verb(uint32_t departure);

// "all-reduce 7 of 8192 bytes"
std::string describe(const Description& collective);
// "step 3, all-reduce 7 of 8192 bytes: ", the start of an error's message; step < 0 = loading.
std::string place_of(int64_t step, const Description& collective);
// "1.5"
std::string seconds_text(int64_t milliseconds);

// FNV-1a over 32-bit words.
uint32_t layout_hash(const void* words, int64_t bytes);

}  // namespace nds::comm
