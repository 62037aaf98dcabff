// How a step ends between its ranks: whether they agree, and what they exchanged.
#include "comm/agreement.h"

#include <cstdio>
#include <string>
#include <vector>

#include "core/error.h"

namespace nds::comm {
namespace {

struct Fingerprint {
  uint64_t plan;
  uint64_t output;
};

std::string hexadecimal(uint64_t value) {
  char text[20];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(value));
  return text;
}

// "0123… on ranks 0, 2 and 4567… on rank 1"
std::string who_has_what(const std::vector<Fingerprint>& all, uint64_t Fingerprint::* field) {
  std::string text;
  std::vector<bool> named(all.size());
  for (size_t first = 0; first < all.size(); first++) {
    if (named[first]) continue;
    std::string ranks;
    int count = 0;
    for (size_t r = first; r < all.size(); r++) {
      if (all[r].*field != all[first].*field) continue;
      named[r] = true;
      ranks += (count++ == 0 ? "" : ", ") + std::to_string(r);
    }
    text += (first == 0 ? "" : " and ") + hexadecimal(all[first].*field) + (count == 1 ? " on rank " : " on ranks ") +
            ranks;
  }
  return text;
}

}  // namespace

void check_agreement(Communicator& comm, int64_t step, uint64_t plan_hash, uint64_t output_hash) {
  if (comm.world_size() == 1) return;
  const Fingerprint mine{plan_hash, output_hash};
  std::vector<Fingerprint> all(comm.world_size());
  const std::vector<int64_t> counts(comm.world_size(), sizeof(mine));
  comm.all_gather(&mine, counts.data(), all.data());
  const auto differ = [&all](uint64_t Fingerprint::* field) {
    for (const Fingerprint& other : all) {
      if (other.*field != all[0].*field) return true;
    }
    return false;
  };
  // A differing plan explains a differing output, so the plan is reported first.
  const bool plans_differ = differ(&Fingerprint::plan);
  if (!plans_differ && !differ(&Fingerprint::output)) return;
  throw Error("ERR_MISMATCH", "Step " + std::to_string(step) + ": Expected the same " +
                                  (plans_differ ? "plan" : "tokens") + " on every rank but received " +
                                  who_has_what(all, plans_differ ? &Fingerprint::plan : &Fingerprint::output));
}

void count_exchange(Communicator& comm, StepResult& result) {
  const Communicator::Stats stats = comm.take_stats();
  result.wait_seconds += stats.wait_seconds;
  result.exchanged_bytes += static_cast<double>(stats.exchanged_bytes);
  result.all_reduce_bytes += static_cast<double>(stats.all_reduce_bytes);
}

}  // namespace nds::comm
