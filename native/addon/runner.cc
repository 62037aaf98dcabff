// `Runner` of rank/native.ts: a backend behind the executor thread of its rank.
#include "addon/runner.h"

#include <atomic>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "addon/executor.h"
#include "addon/js.h"
#include "addon/program_reader.h"
#include "core/backend.h"

namespace nds::addon {
namespace {

using Deferred = std::shared_ptr<Napi::Promise::Deferred>;

Settle reject(const Deferred& deferred, const Error& error) {
  return [deferred, error](Napi::Env env) { deferred->Reject(to_js(env, error).Value()); };
}

// Runs body on the executor thread; whatever it throws rejects the promise.
template <typename Body>
std::function<Settle()> guarded(const Deferred& deferred, Body body) {
  return [deferred, body = std::move(body)]() mutable -> Settle {
    try {
      return body();
    } catch (const Error& error) {
      return reject(deferred, error);
    } catch (const std::bad_alloc&) {
      return reject(deferred, Error("ERR_SYSTEM", "Expected enough memory but the allocation failed"));
    } catch (const std::exception& error) {
      return reject(deferred, Error("ERR_INTERNAL", error.what()));
    }
  };
}

template <typename Array, typename T>
Array copy_array(Napi::Env env, const std::vector<T>& data) {
  Array array = Array::New(env, data.size());
  if (!data.empty()) std::memcpy(array.Data(), data.data(), data.size() * sizeof(T));
  return array;
}

// Sections of protocol/step-result.ts, at multiples of 64 bytes.
Napi::Object lay_out(Napi::Env env, const StepResult& result) {
  const double stats[4] = {result.execute_seconds, result.wait_seconds, result.exchanged_bytes,
                           result.all_reduce_bytes};
  struct Section {
    int32_t id;
    const void* data;
    size_t bytes;
  };
  const Section sections[] = {
      {1, result.num_tokens.data(), result.num_tokens.size() * 4},
      {2, result.token_ids.data(), result.token_ids.size() * 4},
      {3, result.logits.data(), result.logits.size() * 4},
      {4, stats, sizeof(stats)},
  };
  std::vector<int32_t> directory;
  size_t end = 0;
  for (const Section& section : sections) {
    directory.insert(directory.end(), {section.id, static_cast<int32_t>(end), static_cast<int32_t>(section.bytes)});
    end = (end + section.bytes + 63) / 64 * 64;
  }
  Napi::Uint8Array bytes = Napi::Uint8Array::New(env, end);
  for (size_t i = 0; i < 4; i++) {
    if (sections[i].bytes > 0) std::memcpy(bytes.Data() + directory[i * 3 + 1], sections[i].data, sections[i].bytes);
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("directory", copy_array<Napi::Int32Array>(env, directory));
  object.Set("bytes", bytes);
  return object;
}

// Plan bytes at an alignment that native may read in place.
struct PlanBytes {
  explicit PlanBytes(size_t size) : size(size), storage(new uint8_t[size + 63]) {
    data = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(storage.get()) + 63) / 64 * 64);
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
  options.num_threads = get_int(object, "numThreads");
  options.startup_timeout_ms = get_int64(object, "startupTimeoutMs");
  options.step_timeout_ms = get_int64(object, "stepTimeoutMs");
  const bool is_place = options.rank >= 0 && options.rank < options.world_size && options.local_rank >= 0 &&
                        options.local_rank < options.local_world_size;
  if (!is_place || options.num_threads < 1 || options.num_threads > 1024) {
    throw Error("ERR_INTERNAL", "Expected ranks below their world sizes and 1 to 1024 threads");
  }
  return options;
}

// read(first argument), its native error as a JavaScript one: only those may leave a callback.
template <typename T>
T translated(const Napi::CallbackInfo& info, T (*read)(const Napi::Object&)) {
  try {
    if (!info[0].IsObject()) throw Error("ERR_INTERNAL", "Expected an object as the first argument");
    return read(info[0].As<Napi::Object>());
  } catch (const Error& error) {
    throw to_js(info.Env(), error);
  }
}

// Shared by the JavaScript object and the jobs in the queue. Members but `backend` belong to the executor thread.
struct State {
  std::shared_ptr<Backend> backend;
  bool loaded = false;
  std::shared_ptr<Error> failure;
  std::atomic<bool> closed{false};
};

class Runner : public Napi::ObjectWrap<Runner> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Runner",
                       {InstanceMethod("load", &Runner::load), InstanceMethod("submit", &Runner::submit),
                        InstanceMethod("close", &Runner::close)});
  }

  explicit Runner(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<Runner>(info),
        state_(std::make_shared<State>()),
        executor_(new Executor(info.Env())),
        options_(translated(info, read_options)) {}

 private:
  Napi::Value load(const Napi::CallbackInfo& info) {
    auto deferred = std::make_shared<Napi::Promise::Deferred>(Napi::Promise::Deferred::New(info.Env()));
    auto program = std::make_shared<ProgramSpec>(translated(info, read_program));
    executor_->post(guarded(deferred, [deferred, program, state = state_, options = options_]() -> Settle {
      if (state->closed) throw Error("ERR_CLOSED", "Expected an open runner but it was closed");
      if (state->loaded) throw Error("ERR_USAGE", "Expected one model at a time but a second one was loaded");
      const std::shared_ptr<Backend> backend = make_cpu_backend(options);
      const LoadReport report = backend->load(std::move(*program));
      std::atomic_store(&state->backend, backend);
      state->loaded = true;
      return [deferred, report](Napi::Env env) {
        Napi::Object object = Napi::Object::New(env);
        object.Set("weightBytes", static_cast<double>(report.weight_bytes));
        object.Set("kvBytes", static_cast<double>(report.kv_bytes));
        object.Set("scratchBytes", static_cast<double>(report.scratch_bytes));
        deferred->Resolve(object);
      };
    }));
    return deferred->Promise();
  }

  Napi::Value submit(const Napi::CallbackInfo& info) {
    auto deferred = std::make_shared<Napi::Promise::Deferred>(Napi::Promise::Deferred::New(info.Env()));
    const int64_t step = info[0].As<Napi::Number>().Int64Value();
    const Napi::Int32Array sections = info[1].As<Napi::Int32Array>();
    const Napi::Uint8Array bytes = info[2].As<Napi::Uint8Array>();
    auto directory =
        std::make_shared<std::vector<int32_t>>(sections.Data(), sections.Data() + sections.ElementLength());
    auto copy = std::make_shared<PlanBytes>(bytes.ByteLength());
    std::memcpy(copy->data, bytes.Data(), copy->size);
    executor_->post(guarded(deferred, [deferred, step, directory, copy, state = state_]() -> Settle {
      if (state->failure) throw Error(*state->failure);
      if (state->closed) throw Error("ERR_CLOSED", "Expected an open runner but it was closed");
      if (!state->loaded) throw Error("ERR_USAGE", "Expected a loaded model before the first plan");
      try {
        const PlanView plan = view_plan(step, directory->data(), static_cast<int64_t>(directory->size()), copy->data,
                                        static_cast<int64_t>(copy->size));
        auto result = std::make_shared<StepResult>(state->backend->run(plan));
        return [deferred, result](Napi::Env env) { deferred->Resolve(lay_out(env, *result)); };
      } catch (const Error& error) {
        // Ranks that missed a step can not take the next one.
        state->failure = std::make_shared<Error>(error);
        throw;
      }
    }));
    return deferred->Promise();
  }

  Napi::Value close(const Napi::CallbackInfo& info) {
    auto deferred = std::make_shared<Napi::Promise::Deferred>(Napi::Promise::Deferred::New(info.Env()));
    state_->closed = true;
    if (const std::shared_ptr<Backend> backend = std::atomic_load(&state_->backend)) backend->abort();
    executor_->post(guarded(deferred, [deferred, state = state_]() -> Settle {
      std::atomic_store(&state->backend, std::shared_ptr<Backend>());
      state->loaded = false;
      return [deferred](Napi::Env env) { deferred->Resolve(env.Undefined()); };
    }));
    return deferred->Promise();
  }

  std::shared_ptr<State> state_;
  std::unique_ptr<Executor> executor_;
  BackendOptions options_;
};

}  // namespace

Napi::Value create_runner(const Napi::CallbackInfo& info) { return Runner::define(info.Env()).New({info[0]}); }

}  // namespace nds::addon
