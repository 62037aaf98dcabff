// `testing.probe`: the hardware limits to which a benchmark compares its measurements.
#include <chrono>
#include <cstring>

#include "addon/js.h"
#include "addon/testing/testing.h"
#include "core/memory.h"
#include "cpu/isa.h"
#include "cpu/thread_pool.h"

namespace nds::addon {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

using Arithmetic = double (*)(int64_t rounds, float* sink);

// Operations per second of a probe on all threads, kRounds rounds each.
double measure(cpu::ThreadPool& pool, int num_threads, Arithmetic arithmetic) {
  constexpr int64_t kRounds = 10000000;
  std::vector<float> sinks(static_cast<size_t>(num_threads) * 32);
  double operations = 0;
  const auto start = std::chrono::steady_clock::now();
  pool.run([&](int tid) {
    const double done = arithmetic(kRounds, &sinks[tid * 32]);
    if (tid == 0) operations = done * num_threads;
  });
  return operations / seconds_since(start);
}

// probe({ numThreads, bytes }) → { readBytesPerSecond, flopsPerSecond, int8OpsPerSecond }: one pass over `bytes` of
// memory, then multiply-adds of floats and of bytes.
Napi::Value probe(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translated(env, [&]() -> Napi::Value {
    const Napi::Object options = info[0].As<Napi::Object>();
    const int num_threads = get_int(options, "numThreads");
    if (num_threads < 1) throw Error("ERR_INTERNAL", "Expected at least one thread");
    const int64_t share = get_int64(options, "bytes") / num_threads / 256 * 256;
    const cpu::Kernels& kernels = cpu::selected_isa();
    cpu::ThreadPool pool(num_threads);
    // 4096 bytes past the end: the prefetch distance of probe_read.
    const HugeMemory memory(static_cast<size_t>(share * num_threads + 4096), "the bandwidth probe");
    pool.run([&](int tid) { std::memset(memory.data() + tid * share, 1, static_cast<size_t>(share)); });
    std::vector<float> sinks(static_cast<size_t>(num_threads) * 32);
    const auto start = std::chrono::steady_clock::now();
    pool.run([&](int tid) { sinks[tid * 32] = kernels.probe_read(memory.data() + tid * share, share); });
    const double read_seconds = seconds_since(start);
    Napi::Object result = Napi::Object::New(env);
    result.Set("readBytesPerSecond", static_cast<double>(share * num_threads) / read_seconds);
    result.Set("flopsPerSecond", measure(pool, num_threads, kernels.probe_multiply_add));
    result.Set("int8OpsPerSecond", measure(pool, num_threads, kernels.probe_int8));
    return result;
  });
}

}  // namespace

void register_testing_probe(Napi::Env env, Napi::Object testing) {
  testing.Set("probe", Napi::Function::New(env, probe));
}

}  // namespace nds::addon
