// Runs scripts of collectives for tests: one rank in this process, or a whole gang as threads of it.
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "addon/executor.h"
#include "addon/js.h"
#include "addon/mesh.h"
#include "addon/promises.h"
#include "addon/testing/testing.h"
#include "comm/agreement.h"
#include "comm/make_communicator.h"

namespace nds::addon {
namespace {

// One step of a script. `op` is allReduce, exchangeRows, allGather, setStep, agree, abort, close, reopen or die, and
// decides which members are used.
struct Op {
  std::string op;
  int64_t step = 0;
  int64_t plan_hash = 0, output_hash = 0;
  int rank = 0;
  int64_t count = 0;
  std::vector<int> num_roots;
  std::vector<uint8_t> merges;
  int64_t num_rows = 0, row_bytes = 0, stride = 0;
  std::vector<int32_t> owner;
  std::vector<int64_t> counts;
  std::vector<uint8_t> data;
};

// Result of an op: bytes, or the code and message of an error.
struct Outcome {
  std::vector<uint8_t> bytes;
  std::string code, message;
};

struct RankRun {
  BackendOptions options;
  std::vector<Op> script;
  std::vector<Outcome> outcomes;
  comm::Communicator::Stats stats;
  std::mutex mutex;  // guards the pointer: another rank's script may abort this one
  std::unique_ptr<comm::Communicator> communicator;
};

using Gang = std::vector<std::unique_ptr<RankRun>>;

template <typename T>
std::vector<T> numbers(const Napi::Object& object, const char* key) {
  const Napi::Array array = get_array(object, key);
  std::vector<T> result;
  for (uint32_t i = 0; i < array.Length(); i++) result.push_back(static_cast<T>(array.Get(i).ToNumber().Int64Value()));
  return result;
}

std::vector<uint8_t> bytes_of(const Napi::Object& object, const char* key) {
  const Napi::Value value = member(object, key);
  if (!value.IsTypedArray())
    throw Error("ERR_INTERNAL", std::string("Expected property ") + key + " to be a typed array");
  const Napi::TypedArray array = value.As<Napi::TypedArray>();
  const uint8_t* data = static_cast<const uint8_t*>(array.ArrayBuffer().Data()) + array.ByteOffset();
  return std::vector<uint8_t>(data, data + array.ByteLength());
}

void expect_bytes(const Op& op, int64_t bytes) {
  if (static_cast<int64_t>(op.data.size()) == bytes) return;
  throw Error("ERR_INTERNAL", "Expected " + std::to_string(bytes) + " bytes for " + op.op + " but received " +
                                  std::to_string(op.data.size()));
}

Op read_op(const Napi::Object& object, int rank, int world_size) {
  Op op;
  op.op = get_string(object, "op");
  if (op.op == "setStep") op.step = get_int64(object, "step");
  if (op.op == "agree") {
    op.step = get_int64(object, "step");
    op.plan_hash = get_int64(object, "planHash");
    op.output_hash = get_int64(object, "outputHash");
  }
  if (op.op == "abort") op.rank = get_int(object, "rank");
  if (op.op == "allReduce") {
    op.count = get_int64(object, "count");
    op.num_roots = numbers<int>(object, "numRoots");
    op.num_roots.resize(world_size);
    op.merges = numbers<uint8_t>(object, "merges");
    op.data = bytes_of(object, "data");
    expect_bytes(op, op.num_roots[rank] * op.count * 4);
  }
  if (op.op == "exchangeRows") {
    op.num_rows = get_int64(object, "numRows");
    op.row_bytes = get_int64(object, "rowBytes");
    op.stride = get_int64(object, "stride");
    op.owner = numbers<int32_t>(object, "owner");
    op.owner.resize(op.num_rows);
    op.data = bytes_of(object, "data");
    expect_bytes(op, op.num_rows * op.stride);
  }
  if (op.op == "allGather") {
    op.counts = numbers<int64_t>(object, "counts");
    op.counts.resize(world_size);
    op.data = bytes_of(object, "data");
    expect_bytes(op, op.counts[rank]);
  }
  return op;
}

std::unique_ptr<RankRun> read_rank(const Napi::Object& options, const Napi::Array& script, int rank, int shm_fd) {
  auto run = std::make_unique<RankRun>();
  run->options.rank = run->options.local_rank = rank;
  run->options.world_size = run->options.local_world_size = get_int(options, "worldSize");
  run->options.shm_fd = shm_fd;
  run->options.step_timeout_ms = get_int64(options, "stepTimeoutMs");
  run->options.startup_timeout_ms = get_int64(options, "startupTimeoutMs");
  for (uint32_t i = 0; i < script.Length(); i++) {
    run->script.push_back(read_op(script.Get(i).As<Napi::Object>(), rank, run->options.world_size));
  }
  return run;
}

// Joins by the stack program `merges` of reduction_tree.h.
comm::JoinFn join_by(const std::vector<uint8_t>& merges) {
  return [&merges](const float* const* inputs, int64_t begin, int64_t end, float* out) {
    std::vector<float> stack;
    for (int64_t i = begin; i < end; i++) {
      stack.clear();
      for (size_t k = 0; k < merges.size(); k++) {
        stack.push_back(inputs[k][i]);
        for (int m = 0; m < merges[k]; m++) {
          const float upper = stack.back();
          stack.pop_back();
          stack.back() += upper;
        }
      }
      out[i] = stack.back();
    }
  };
}

std::vector<uint8_t> run_collective(RankRun& run, const Op& op) {
  comm::Communicator* communicator = run.communicator.get();
  if (communicator == nullptr) throw Error("ERR_CLOSED", "Expected an open communicator for " + op.op);
  if (op.op == "allReduce") {
    std::vector<const float*> local;
    for (int root = 0; root < op.num_roots[run.options.rank]; root++) {
      local.push_back(reinterpret_cast<const float*>(op.data.data()) + root * op.count);
    }
    std::vector<uint8_t> out(static_cast<size_t>(op.count) * 4);
    communicator->all_reduce(local.data(), op.num_roots.data(), op.count, join_by(op.merges),
                             reinterpret_cast<float*>(out.data()));
    return out;
  }
  if (op.op == "exchangeRows") {
    std::vector<uint8_t> rows = op.data;
    communicator->exchange_rows(rows.data(), op.num_rows, op.row_bytes, op.stride, op.owner.data());
    return rows;
  }
  if (op.op == "allGather") {
    int64_t total = 0;
    for (const int64_t count : op.counts) total += count;
    std::vector<uint8_t> out(total);
    communicator->all_gather(op.data.data(), op.counts.data(), out.data());
    return out;
  }
  if (op.op == "agree") {
    comm::check_agreement(*communicator, op.step, static_cast<uint64_t>(op.plan_hash),
                          static_cast<uint64_t>(op.output_hash));
    return {};
  }
  if (op.op != "setStep") throw Error("ERR_INTERNAL", "Expected an op of the script but received " + op.op);
  communicator->set_step(op.step);
  return {};
}

std::vector<uint8_t> run_op(Gang& gang, RankRun& run, const Op& op) {
  if (op.op == "abort") {
    RankRun& target = *gang.at(op.rank - gang[0]->options.rank);
    const std::lock_guard<std::mutex> lock(target.mutex);
    if (target.communicator) target.communicator->abort();
  } else if (op.op == "close" || op.op == "reopen") {
    const std::lock_guard<std::mutex> lock(run.mutex);
    run.communicator.reset();
    if (op.op == "reopen") run.communicator = comm::make_communicator(run.options);
  } else if (op.op == "die") {
    raise(SIGKILL);
  } else {
    return run_collective(run, op);
  }
  return {};
}

// A failed op is recorded, and the script goes on.
void run_script(Gang& gang, RankRun& run) {
  for (const Op& op : run.script) {
    try {
      run.outcomes.push_back({run_op(gang, run, op), "", ""});
    } catch (const Error& error) {
      run.outcomes.push_back({{}, error.code, error.what()});
    } catch (const std::exception& error) {
      run.outcomes.push_back({{}, "ERR_INTERNAL", error.what()});
    }
  }
  if (run.communicator) run.stats = run.communicator->take_stats();
}

Napi::Value to_js(Napi::Env env, const RankRun& run) {
  Napi::Array outcomes = Napi::Array::New(env);
  for (const Outcome& outcome : run.outcomes) {
    Napi::Object object = Napi::Object::New(env);
    if (outcome.code.empty()) {
      Napi::Uint8Array bytes = Napi::Uint8Array::New(env, outcome.bytes.size());
      if (!outcome.bytes.empty()) std::memcpy(bytes.Data(), outcome.bytes.data(), outcome.bytes.size());
      object.Set("bytes", bytes);
    } else {
      object.Set("code", outcome.code);
      object.Set("message", outcome.message);
    }
    outcomes.Set(outcomes.Length(), object);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("outcomes", outcomes);
  result.Set("exchangedBytes", static_cast<double>(run.stats.exchanged_bytes));
  result.Set("allReduceBytes", static_cast<double>(run.stats.all_reduce_bytes));
  result.Set("waitSeconds", run.stats.wait_seconds);
  return result;
}

// commRank({ worldSize, rank, shmFd, stepTimeoutMs, startupTimeoutMs }, ops) → { outcomes, exchangedBytes,
// allReduceBytes, waitSeconds }, with one outcome per op: { bytes } or { code, message }.
Napi::Value comm_rank(const Napi::CallbackInfo& info) {
  try {
    const Napi::Object options = info[0].As<Napi::Object>();
    Gang gang;
    gang.push_back(read_rank(options, info[1].As<Napi::Array>(), get_int(options, "rank"), get_int(options, "shmFd")));
    gang[0]->communicator = comm::make_communicator(gang[0]->options);
    run_script(gang, *gang[0]);
    return to_js(info.Env(), *gang[0]);
  } catch (const Error& error) {
    throw addon::to_js(info.Env(), error);
  }
}

void run_threads(Gang& gang) {
  std::vector<std::thread> threads;
  for (const std::unique_ptr<RankRun>& run : gang) threads.emplace_back([&gang, &run] { run_script(gang, *run); });
  for (std::thread& thread : threads) thread.join();
}

Napi::Value to_js(Napi::Env env, const Gang& gang) {
  Napi::Array results = Napi::Array::New(env);
  for (const std::unique_ptr<RankRun>& run : gang) results.Set(results.Length(), to_js(env, *run));
  return results;
}

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

File fresh_file() {
  File file(std::tmpfile(), std::fclose);
  if (!file) throw Error("ERR_SYSTEM", "Expected to create a temporary file");
  return file;
}

// commSelfTest({ worldSize, stepTimeoutMs, startupTimeoutMs }, [ops of rank 0, …]) → the result of commRank per rank.
// Each rank is a thread with its own mapping of a fresh file.
Napi::Value comm_self_test(const Napi::CallbackInfo& info) {
  return translated(info.Env(), [&] {
    const File file = fresh_file();
    const Napi::Array scripts = info[1].As<Napi::Array>();
    Gang gang;
    for (uint32_t r = 0; r < scripts.Length(); r++) {
      const Napi::Array script = scripts.Get(r).As<Napi::Array>();
      gang.push_back(read_rank(info[0].As<Napi::Object>(), script, static_cast<int>(r), fileno(file.get())));
      gang.back()->communicator = comm::make_communicator(gang.back()->options);
    }
    run_threads(gang);
    return to_js(info.Env(), gang);
  });
}

// The ranks of one host of several, on an executor of their own.
struct NodeRun {
  explicit NodeRun(Napi::Env env) : executor(env) {}
  Executor executor;
  File file = fresh_file();
  Gang gang;
};

// commNode({ worldSize, numNodes, nodeRank, mesh, stepTimeoutMs, startupTimeoutMs }, [ops of the node's first rank, …])
// → a promise of { results, close }: the result of commRank per rank of the node, whose communicators close() frees.
// mesh: connected, as made by listenMesh.
Napi::Value comm_node(const Napi::CallbackInfo& info) {
  return translated(info.Env(), [&] {
    const Napi::Object options = info[0].As<Napi::Object>();
    const Napi::Array scripts = info[1].As<Napi::Array>();
    const auto node = std::make_shared<NodeRun>(info.Env());
    const int local_world_size = static_cast<int>(scripts.Length());
    for (int r = 0; r < local_world_size; r++) {
      const int rank = get_int(options, "nodeRank") * local_world_size + r;
      node->gang.push_back(read_rank(options, scripts.Get(r).As<Napi::Array>(), rank, fileno(node->file.get())));
      BackendOptions& place = node->gang.back()->options;
      place.local_rank = r;
      place.local_world_size = local_world_size;
      place.num_nodes = get_int(options, "numNodes");
      if (r == 0) place.leaders = mesh_of(member(options, "mesh"));
      node->gang.back()->communicator = comm::make_communicator(place);
    }
    const Deferred deferred = defer(info.Env());
    node->executor.post(guarded(deferred, [deferred, node]() -> Settle {
      run_threads(node->gang);
      return resolve(deferred, [node](Napi::Env env) {
        Napi::Object result = Napi::Object::New(env);
        result.Set("results", to_js(env, node->gang));
        result.Set("close", Napi::Function::New(env, [node](const Napi::CallbackInfo&) { node->gang.clear(); }));
        return result;
      });
    }));
    return deferred->Promise();
  });
}

// sipHash(key, data) → MAC
Napi::Value sip_hash(const Napi::CallbackInfo& info) {
  return translated(info.Env(), [&]() -> Napi::Value {
    const auto key = as_typed_array<Napi::Uint8Array>(info[0], napi_uint8_array, "a key");
    const auto data = as_typed_array<Napi::Uint8Array>(info[1], napi_uint8_array, "data");
    comm::Key bytes{};
    std::memcpy(bytes.data(), key.Data(), std::min(bytes.size(), key.ByteLength()));
    const comm::Mac mac = comm::siphash128(bytes, data.Data(), static_cast<int64_t>(data.ByteLength()));
    Napi::Uint8Array result = Napi::Uint8Array::New(info.Env(), mac.size());
    std::memcpy(result.Data(), mac.data(), mac.size());
    return result;
  });
}

}  // namespace

void register_testing_comm(Napi::Env env, Napi::Object testing) {
  testing.Set("commRank", Napi::Function::New(env, comm_rank));
  testing.Set("commSelfTest", Napi::Function::New(env, comm_self_test));
  testing.Set("commNode", Napi::Function::New(env, comm_node));
  testing.Set("sipHash", Napi::Function::New(env, sip_hash));
}

}  // namespace nds::addon
