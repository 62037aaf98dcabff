// Accept rules `standard` and `block` of speculative decoding: inputs, outputs, and the addresses of their random
// numbers.
//
// A random word is a function of its address alone: Philox with the request's seed as key and the counter
//   (token id / 4, absolute position of the token, stream | sample_index << 8, round).
// In a round that begins at position P with K drafts:
//   draft j           Gumbel noise  draft     at P + j, round P
//   coin of draft j   64 bits       accept    at P + j, round P, token id 0
//   the token after   Gumbel noise  residual  at P + a, round P, where a drafts are accepted; also for a = K
// Independence: rounds begin at different positions, and a round uses each address at most once. Its numbers are thus
// independent of each other, of every other round, and of the target's own draws (stream target, round 0). The counter
// holds the round because rejection reveals something about a draft's noise and coin; in `block`, rejection of any
// draft of the round does. Without the round, the next draft at that position would reuse both.
//
// K may depend on q and on tokens already drawn; each of those stays among the drafts, none is ever left out. A round
// whose result was lost repeats with the same numbers, hence the same K. A request keeps one rule: drafts of `coupled`
// have seen the target's noise of later positions.
#pragma once
#include <cstdint>

namespace nds {

enum class NoiseStream : uint32_t { target = 0, draft = 1, accept = 2, residual = 3 };

constexpr uint64_t kOneMass = uint64_t{1} << 44;

// The target's p or the draft's q after some text. The probability of ids[i] is exactly masses[i] / total.
struct Distribution {
  const int32_t* ids;      // [n] ascending
  const uint64_t* masses;  // [n] round(exp(x - max) * 2^44), zeros left out
  int n;                   // below 2^20, so that the total fits 64 bits
  uint64_t total;
};

enum class AcceptRule {
  standard,  // Leviathan et al. 2023, Chen et al. 2023
  block,     // Block Verification: Sun et al. 2024, algorithm 2
};

constexpr int kMaxDrafts = 64;

struct Accepted {
  int num_accepted;  // 0 … K
  int32_t token;     // the next token: from the residual of p and q, or from p if all K are accepted
};

}  // namespace nds
