// `Runner` of rank/native.ts: a backend behind the executor thread of its rank.
#include "addon/runner.h"

#include <atomic>
#include <cstring>
#include <deque>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "addon/cuda_library.h"
#include "addon/executor.h"
#include "addon/js.h"
#include "addon/mesh.h"
#include "addon/program_reader.h"
#include "addon/promises.h"
#include "core/backend.h"
#include "core/state_memory.h"

namespace nds::addon {
namespace {

template <typename Array, typename T>
Array copy_array(Napi::Env env, const std::vector<T>& data) {
  Array array = Array::New(env, data.size());
  if (!data.empty()) std::memcpy(array.Data(), data.data(), data.size() * sizeof(T));
  return array;
}

// Lays out the sections of protocol/step-result.ts, 64-byte aligned.
Napi::Object lay_out(Napi::Env env, const StepResult& result) {
  const double stats[7] = {result.execute_seconds, result.wait_seconds, result.exchanged_bytes, result.all_reduce_bytes,
                           result.start_seconds,   result.end_seconds,  result.draft_seconds};
  const uint64_t hashes[2] = {result.plan_hash, result.output_hash};
  struct Section {
    int32_t id;
    const void* data;
    size_t bytes;
  };
  std::vector<Section> sections = {
      {1, result.num_tokens.data(), result.num_tokens.size() * 4},
      {2, result.token_ids.data(), result.token_ids.size() * 4},
      {3, result.logits.data(), result.logits.size() * 4},
      {4, stats, sizeof(stats)},
      {9, hashes, sizeof(hashes)},
      {5, result.logprob_ids.data(), result.logprob_ids.size() * 4},
      {6, result.logprobs.data(), result.logprobs.size() * 4},
      {7, result.logprob_ranks.data(), result.logprob_ranks.size() * 4},
  };
  if (!result.hidden.empty()) sections.push_back({10, result.hidden.data(), result.hidden.size() * 4});
  if (!result.trace.empty()) sections.push_back({8, result.trace.data(), result.trace.size() * sizeof(TraceEvent)});
  std::vector<int32_t> directory;
  size_t end = 0;
  for (const Section& section : sections) {
    directory.insert(directory.end(), {section.id, static_cast<int32_t>(end), static_cast<int32_t>(section.bytes)});
    end = (end + section.bytes + 63) / 64 * 64;
  }
  Napi::Uint8Array bytes = Napi::Uint8Array::New(env, end);
  const int32_t* entry = directory.data();
  for (const Section& section : sections) {
    if (section.bytes > 0) std::memcpy(bytes.Data() + entry[1], section.data, section.bytes);
    entry += 3;
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("directory", copy_array<Napi::Int32Array>(env, directory));
  object.Set("bytes", bytes);
  return object;
}

// A copy of plan bytes, 64-byte aligned, so that native can read it in place.
struct PlanBytes {
  explicit PlanBytes(const Napi::Uint8Array& from) : size(from.ByteLength()), storage(new uint8_t[size + 63]) {
    data = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(storage.get()) + 63) / 64 * 64);
    if (size > 0) std::memcpy(data, from.Data(), size);
  }
  size_t size;
  std::unique_ptr<uint8_t[]> storage;
  uint8_t* data;
};

BackendOptions read_options(const Napi::Object& object) {
  BackendOptions options;
  options.rank = get_int(object, "rank");
  options.world_size = get_int(object, "worldSize");
  options.shm_fd = get_int(object, "shmFd");
  options.local_rank = get_int(object, "localRank");
  options.local_world_size = get_int(object, "localWorldSize");
  if (object.Get("mesh").IsObject()) {
    const Napi::Object mesh = get_object(object, "mesh");
    options.num_nodes = get_int(mesh, "numNodes");
    const Napi::Value handle = member(mesh, "handle");
    if (!handle.IsNull()) options.leaders = mesh_of(handle);
    if (get_int(mesh, "nodeRank") * options.local_world_size + options.local_rank != options.rank)
      throw Error("ERR_INTERNAL", "Expected the ranks of a node to follow those of the nodes before it");
  }
  options.num_threads = get_int(object, "numThreads");
  if (object.Get("threadPlacement").IsObject()) {
    const Napi::Object placement = get_object(object, "threadPlacement");
    const Napi::Array processors = get_array(placement, "processors");
    for (uint32_t i = 0; i < processors.Length(); i++)
      options.processors.push_back(processors.Get(i).As<Napi::Number>().Int32Value());
    options.crowded = get_bool(placement, "isCrowded");
  }
  options.startup_timeout_ms = get_int64(object, "startupTimeoutMs");
  options.step_timeout_ms = get_int64(object, "stepTimeoutMs");
  options.on_cuda = object.Get("cuda").IsObject();
  if (options.on_cuda) {
    const Napi::Object cuda = get_object(object, "cuda");
    options.device = get_int(cuda, "deviceIndex");
    options.deterministic = get_bool(cuda, "deterministic");
  }
  options.trace = object.Has("trace") && get_bool(object, "trace");
  const bool is_place = options.rank >= 0 && options.rank < options.world_size && options.local_rank >= 0 &&
                        options.local_rank < options.local_world_size;
  if (!is_place || options.num_threads < 1 || options.num_threads > 1024) {
    throw Error("ERR_INTERNAL", "Expected ranks below their world sizes and 1 to 1024 threads");
  }
  return options;
}

Napi::Object first_object(const Napi::CallbackInfo& info) {
  if (!info[0].IsObject()) throw Error("ERR_INTERNAL", "Expected an object as the first argument");
  return info[0].As<Napi::Object>();
}

int read_state_fd(const Napi::CallbackInfo& info) {
  const Napi::Object object = first_object(info);
  return object.Has("stateFd") ? get_int(object, "stateFd") : -1;
}

DraftRule read_rule(const Napi::Value& value) {
  if (!value.IsString()) return DraftRule::coupled;
  const std::string name = value.As<Napi::String>().Utf8Value();
  if (name == "standard") return DraftRule::standard;
  if (name == "block") return DraftRule::block;
  if (name != "coupled") throw Error("ERR_INTERNAL", "Expected a rule for drafts but received " + name);
  return DraftRule::coupled;
}

LoadSpec read_load(const Napi::CallbackInfo& info) {
  LoadSpec spec;
  spec.model = read_program(first_object(info));
  spec.draft_rule = read_rule(info[2]);
  if (!info[1].IsObject()) return spec;
  const Napi::Object draft = info[1].As<Napi::Object>();
  spec.draft = read_program(get_object(draft, "program"));
  spec.shards_draft = get_bool(draft, "isSharded");
  spec.greedy_draft = get_bool(draft, "isGreedy");
  return spec;
}

// A copy of the step that JavaScript submitted.
struct Submission {
  explicit Submission(const Napi::CallbackInfo& info)
      : step(info[0].As<Napi::Number>().Int64Value()),
        bytes(as_typed_array<Napi::Uint8Array>(info[2], napi_uint8_array, "the bytes of a plan")) {
    const auto sections = as_typed_array<Napi::Int32Array>(info[1], napi_int32_array, "the directory of a plan");
    directory.assign(sections.Data(), sections.Data() + sections.ElementLength());
  }
  int64_t step;
  std::vector<int32_t> directory;
  PlanBytes bytes;
};

// Shared by the JavaScript object and the queued jobs. All members except `backend` and `closed` belong to the executor
// thread.
struct State {
  State(int state_fd, int local_rank) : memory(state_fd, local_rank) {}
  ~State() { forget_steps(); }

  StateMemory memory;  // outlives the backend that writes to it
  std::shared_ptr<Backend> backend;
  std::deque<int64_t> steps;  // in flight
  bool loaded = false;
  std::shared_ptr<Error> failure;
  std::atomic<bool> closed{false};
  // Bytes of weights that the last load has packed so far. Outlives the backend that counts.
  std::shared_ptr<std::atomic<int64_t>> loaded_bytes = std::make_shared<std::atomic<int64_t>>(0);

  LoadReport load(BackendOptions options, LoadSpec spec) {
    check_open();
    if (loaded) throw Error("ERR_USAGE", "Expected one model at a time but a second one was loaded");
    *loaded_bytes = 0;
    const Progress progress = memory.progress();
    options.progress = progress;
    options.on_loaded = [counter = loaded_bytes, progress](int64_t num_bytes) {
      counter->fetch_add(num_bytes, std::memory_order_relaxed);
      progress.advance();
    };
    progress.begin_load();
    // Stored before it loads, so that close() can end its wait for other ranks. Either close() sees the backend, or
    // check_open() sees `closed`: the lock inside atomic_store and atomic_load puts one of the two first.
    std::atomic_store(&backend, std::shared_ptr<Backend>(options.on_cuda ? make_remote_cuda_backend(options)
                                                                         : make_cpu_backend(options)));
    try {
      check_open();
      const LoadReport report = backend->load(std::move(spec));
      loaded = true;
      progress.end_load();
      return report;
    } catch (...) {
      progress.end_load();
      std::atomic_store(&backend, std::shared_ptr<Backend>());
      throw;
    }
  }

  void launch(const Submission& submission) {
    if (failure) throw Error(*failure);
    check_open();
    if (!loaded) throw Error("ERR_USAGE", "Expected a loaded model before the first plan");
    const std::vector<int32_t>& directory = submission.directory;
    const PlanBytes& bytes = submission.bytes;
    steps.push_back(submission.step);
    memory.progress().begin_step(steps.front());
    failing(submission.step, [&] {
      backend->launch(submission.step, directory.data(), static_cast<int64_t>(directory.size()), bytes.data,
                      static_cast<int64_t>(bytes.size));
    });
  }

  bool is_done() const { return failure || !loaded || backend->is_done(); }

  StepResult collect() {
    if (failure) throw Error(*failure);
    StepResult result;
    const int64_t step = steps.front();
    failing(step, [&] { result = backend->collect(); });
    steps.pop_front();
    memory.progress().end_step(steps.empty() ? step : steps.front());
    return result;
  }

  // Steps in flight never end.
  void forget_steps() {
    for (const int64_t step : steps) memory.progress().end_step(step);
    steps.clear();
  }

 private:
  // Keeps the failure: a rank that missed a step cannot run the next one.
  template <typename Body>
  void failing(int64_t step, Body body) {
    try {
      body();
    } catch (const std::exception& thrown) {
      memory.progress().fail_step(step);
      forget_steps();
      failure = std::make_shared<Error>(as_error(thrown));
      throw;
    }
  }

  void check_open() const {
    if (closed) throw Error("ERR_CLOSED", "Expected an open runner but it was closed");
  }
};

class Runner : public Napi::ObjectWrap<Runner> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Runner",
                       {InstanceMethod("load", &Runner::load), InstanceMethod("loadedBytes", &Runner::loaded_bytes),
                        InstanceMethod("submit", &Runner::submit), InstanceMethod("close", &Runner::close)});
  }

  explicit Runner(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<Runner>(info),
        options_(translated(info.Env(), [&] { return read_options(first_object(info)); })),
        state_(
            translated(info.Env(), [&] { return std::make_shared<State>(read_state_fd(info), options_.local_rank); })),
        executor_(translated(info.Env(), [&] { return std::make_unique<Executor>(info.Env()); })) {
    options_.on_begun = executor_->settler_of_held();
  }

 private:
  Napi::Value load(const Napi::CallbackInfo& info) {
    auto spec = std::make_shared<LoadSpec>(translated(info.Env(), [&] { return read_load(info); }));
    const Deferred deferred = defer(info.Env());
    executor_->post(guarded(deferred, [deferred, spec, state = state_, options = options_]() -> Settle {
      const LoadReport report = state->load(options, std::move(*spec));
      return resolve(deferred, [report](Napi::Env env) {
        Napi::Object object = Napi::Object::New(env);
        object.Set("weightBytes", static_cast<double>(report.weight_bytes));
        object.Set("kvBytes", static_cast<double>(report.kv_bytes));
        object.Set("scratchBytes", static_cast<double>(report.scratch_bytes));
        object.Set("fileBytes", static_cast<double>(report.file_bytes));
        object.Set("notice", report.notice);
        return object;
      });
    }));
    return deferred->Promise();
  }

  Napi::Value loaded_bytes(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(state_->loaded_bytes->load(std::memory_order_relaxed)));
  }

  Napi::Value submit(const Napi::CallbackInfo& info) {
    auto submission = translated(info.Env(), [&] { return std::make_shared<Submission>(info); });
    const Deferred deferred = defer(info.Env());
    const auto collect = guarded(deferred, [deferred, state = state_]() -> Settle {
      auto result = std::make_shared<StepResult>(state->collect());
      return resolve(deferred, [result](Napi::Env env) { return lay_out(env, *result); });
    });
    const auto start = [deferred, submission, collect, state = state_]() -> Pending {
      try {
        state->launch(*submission);
      } catch (const std::exception& thrown) {
        return {[] { return true; }, [settle = reject(deferred, as_error(thrown))] { return settle; }};
      }
      return {[state] { return state->is_done(); }, collect};
    };
    const auto max_in_flight = [state = state_] { return state->loaded ? state->backend->max_in_flight() : 1; };
    executor_->post(start, max_in_flight, !options_.on_cuda);
    return deferred->Promise();
  }

  Napi::Value close(const Napi::CallbackInfo& info) {
    const Deferred deferred = defer(info.Env());
    state_->closed = true;
    if (const std::shared_ptr<Backend> backend = std::atomic_load(&state_->backend)) backend->abort();
    // Else its connections would stay until this object is collected.
    options_.leaders.reset();
    executor_->post(guarded(deferred, [deferred, state = state_]() -> Settle {
      std::atomic_store(&state->backend, std::shared_ptr<Backend>());
      state->forget_steps();
      state->loaded = false;
      return resolve(deferred, [](Napi::Env env) { return env.Undefined(); });
    }));
    return deferred->Promise();
  }

  BackendOptions options_;
  std::shared_ptr<State> state_;
  std::unique_ptr<Executor> executor_;
};

}  // namespace

Napi::Value create_runner(const Napi::CallbackInfo& info) { return Runner::define(info.Env()).New({info[0]}); }

}  // namespace nds::addon
