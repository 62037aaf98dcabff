// `testing.commBench`: times of collectives between the processes of a gang, by size.
#include <chrono>
#include <string>
#include <vector>

#include "addon/js.h"
#include "addon/testing/testing.h"
#include "comm/make_communicator.h"
#include "core/program/reduction_tree.h"
#include "cpu/isa.h"

namespace nds::addon {
namespace {

struct Collective {
  bool reduces = false;
  int64_t bytes = 0;  // of the result
};

// The sum of one array of each rank, by the tree and the kernel of a model.
comm::JoinFn sum_of(int world_size) {
  return [merges = join_merges(world_size, world_size)](const float* const* inputs, int64_t begin, int64_t end,
                                                        float* out) {
    cpu::selected_isa().join({.inputs = inputs,
                              .merges = merges.data(),
                              .num_inputs = static_cast<int>(merges.size()),
                              .bias = nullptr,
                              .width = 1,
                              .begin = begin,
                              .end = end,
                              .out = out});
  };
}

// Seconds of one call, as the mean of `num_calls` that follow each other.
double seconds_per_call(comm::Communicator& communicator, const Collective& collective, int64_t num_calls) {
  const int world_size = communicator.world_size();
  const int64_t count = collective.bytes / 4;
  const std::vector<int> num_roots(world_size, 1);
  std::vector<int64_t> counts(world_size, collective.bytes / world_size);
  counts[0] += collective.bytes % world_size;
  std::vector<float> in(count + 1, 1.0f), out(count + 1);
  const float* const local[] = {in.data()};
  const comm::JoinFn join = sum_of(world_size);
  // All ranks begin together.
  const std::vector<int64_t> none(world_size, 0);
  communicator.all_gather(in.data(), none.data(), out.data());
  const auto start = std::chrono::steady_clock::now();
  for (int64_t call = 0; call < num_calls; call++) {
    if (collective.reduces) {
      communicator.all_reduce(local, num_roots.data(), count, join, out.data());
    } else {
      communicator.all_gather(in.data(), counts.data(), out.data());
    }
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / num_calls;
}

// commBench({ worldSize, rank, shmFd, stepTimeoutMs, startupTimeoutMs, numRounds }, [{ op, bytes, numCalls }]) →
// [numRounds][numOps] seconds of a call; op is allReduce or allGather, and bytes are those of its result.
Napi::Value comm_bench(const Napi::CallbackInfo& info) {
  return translated(info.Env(), [&]() -> Napi::Value {
    const Napi::Object options = info[0].As<Napi::Object>();
    const Napi::Array ops = info[1].As<Napi::Array>();
    BackendOptions place;
    place.rank = place.local_rank = get_int(options, "rank");
    place.world_size = place.local_world_size = get_int(options, "worldSize");
    place.shm_fd = get_int(options, "shmFd");
    place.step_timeout_ms = get_int64(options, "stepTimeoutMs");
    place.startup_timeout_ms = get_int64(options, "startupTimeoutMs");
    const auto communicator = comm::make_communicator(place);
    Napi::Array rounds = Napi::Array::New(info.Env());
    for (int round = 0; round < get_int(options, "numRounds"); round++) {
      Napi::Array seconds = Napi::Array::New(info.Env());
      for (uint32_t i = 0; i < ops.Length(); i++) {
        const Napi::Object op = ops.Get(i).As<Napi::Object>();
        const Collective collective{get_string(op, "op") == "allReduce", get_int64(op, "bytes")};
        seconds.Set(i, seconds_per_call(*communicator, collective, get_int64(op, "numCalls")));
      }
      rounds.Set(rounds.Length(), seconds);
    }
    return rounds;
  });
}

}  // namespace

void register_testing_comm_bench(Napi::Env env, Napi::Object testing) {
  testing.Set("commBench", Napi::Function::New(env, comm_bench));
}

}  // namespace nds::addon
