// How the threads of a team divide a row of the vocabulary, meet, and agree on the best candidate.
#pragma once
#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/kernels/share.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

inline void meet(const Team& team) {
  if (team.size > 1) team.barrier(team.pool);
}

inline Share part_of(int64_t count, const Team& team) { return share_of(count, team.tid, team.size); }

// The best of the team's candidates, on every thread. Each thread has looked at ids above those of the threads before
// it, so that of equal values the lowest id is first. Returns once all have left `shared` [team.size].
inline Candidate best_of_team(const Candidate& own, Candidate* shared, const Team& team) {
  if (team.size == 1) return own;
  shared[team.tid] = own;
  meet(team);
  Candidate best = shared[0];
  for (int i = 1; i < team.size; i++) {
    if (shared[i].id >= 0 && (best.id < 0 || shared[i].value > best.value)) best = shared[i];
  }
  meet(team);
  return best;
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
