// Speculative decoding's accept rules `standard` and `block`: what they take and give, and where their random numbers
// lie.
//
// A random word is a function of its address alone: Philox with the request's seed as key and the counter
//   (token id / 4, absolute position of the token, stream | sample_index << 8, round).
// In a round that begins at position P with K drafts:
//   draft j           Gumbel noise  draft     at P + j, round P
//   coin of draft j   64 bits       accept    at P + j, round P, token id 0
//   the token after   Gumbel noise  residual  at P + a, round P, where a drafts are accepted; also for a = K
// Rounds begin at different positions and a round takes each of these at most once, so that all are independent: of
// each other, of every other round, and of the target's own draws (stream target, round 0). Without the round in the
// counter a draft that was rejected would share its noise and coin with the next draft of that position, though
// rejection, in `block` of any draft of the round, has told something about them.
//
// K may depend on tokens already drawn that stay among the drafts, and on q; a drawn token is never left out. A round
// whose result was lost takes the same numbers again, and so the same K. A request keeps to one rule: drafts of
// `coupled` have seen noise of the target that lies ahead.
#pragma once
#include <cstdint>

namespace nds {

enum class NoiseStream : uint32_t { target = 0, draft = 1, accept = 2, residual = 3 };

constexpr uint64_t kOneMass = uint64_t{1} << 44;

// The target's p or the draft's q after some text: ids[i] has the probability masses[i] / total, exactly.
struct Distribution {
  const int32_t* ids;      // [n] ascending
  const uint64_t* masses;  // [n] round(exp(x - max) * 2^44), those that are not 0
  int n;                   // below 2^20, so that the total fits
  uint64_t total;
};

enum class AcceptRule {
  standard,  // Leviathan et al. 2023, Chen et al. 2023
  block,     // Block Verification: Sun et al. 2024, algorithm 2
};

constexpr int kMaxDrafts = 64;

struct Accepted {
  int num_accepted;  // 0 … K
  int32_t token;     // the one after them: from the residual of p and q, or after K from p
};

}  // namespace nds
