// Shared by the operators of `testing`: their arguments as plain arrays, and matrices of any dtype made from them.
#pragma once
#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "addon/js.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/round_up.h"
#include "cpu/kernels.h"
#include "cpu/thread_pool.h"

namespace nds::addon {

// Kernels of the instruction set options.isa. @throws Error when this processor does not have it.
const cpu::Kernels& get_kernels(const Napi::Object& options);
// 'float32', 'bfloat16' or 'float16'.
DType get_dtype(const Napi::Object& options, const char* key);
Napi::Float32Array get_floats(const Napi::Object& options, const char* key, int64_t length);
// A copy of an Int32Array of any length.
std::vector<int32_t> get_ints(const Napi::Object& options, const char* key);
uint64_t get_uint64(const Napi::Object& options, const char* key);
float get_float(const Napi::Object& options, const char* key);

// Row stride, in elements, of an activation or fp32 value of that width, as in the arena.
inline int64_t padded_width(int64_t width) { return round_up(width, 32); }

// Matrix [rows, ld] of one dtype. Fresh elements are NaN, so that a forbidden read or a missing write shows.
class TestMatrix {
 public:
  TestMatrix(int64_t rows, int64_t ld, DType dtype);
  // values [rows, width] rounded to dtype, then NaN up to ld.
  TestMatrix(const Napi::Float32Array& values, int64_t rows, int64_t width, int64_t ld, DType dtype);

  void* data() { return bytes_.data(); }
  float* f32() { return reinterpret_cast<float*>(bytes_.data()); }
  int64_t ld() const { return ld_; }
  // [rows, ld] widened to fp32.
  Napi::Float32Array to_js_array(Napi::Env env) const;

 private:
  std::vector<uint8_t> bytes_;
  int64_t rows_, ld_;
  DType dtype_;
};

// options.numThreads, 1 by default.
inline int get_team_size(const Napi::Object& options) {
  return options.Has("numThreads") ? get_int(options, "numThreads") : 1;
}

// Runs body(team) on num_threads threads and returns what it returned to the first; threads that were not given the
// same are an error.
template <typename Body>
auto run_team(int num_threads, Body body) {
  if (num_threads == 1) return body(cpu::Team{});
  cpu::ThreadPool pool(num_threads);
  std::vector<decltype(body(cpu::Team{}))> results(static_cast<size_t>(num_threads));
  const auto meet = [](void* of) { static_cast<cpu::ThreadPool*>(of)->barrier(); };
  pool.run([&](int tid) {
    results[static_cast<size_t>(tid)] =
        body(cpu::Team{.tid = tid, .size = num_threads, .barrier = meet, .pool = &pool});
  });
  for (const auto& result : results) {
    if (!(result == results[0])) throw Error("ERR_INTERNAL", "Expected all threads of a team to have one result");
  }
  return results[0];
}

// Scratch of kernels that have one, 64-byte aligned and full of ones, so that what is read before it is written shows.
class TestScratch {
 public:
  explicit TestScratch(int64_t bytes) : bytes_(static_cast<size_t>(bytes) + 63, 0xff) {}
  uint8_t* data() { return bytes_.data() + (64 - reinterpret_cast<uintptr_t>(bytes_.data()) % 64) % 64; }

 private:
  std::vector<uint8_t> bytes_;
};

// Writes value, rounded to dtype, at `to`.
void store_rounded(float value, DType dtype, uint8_t* to);

// Adds a method of `testing`: body(env, options), with its errors translated.
template <typename Body>
void add_method(Napi::Env env, Napi::Object testing, const char* name, Body body) {
  testing.Set(name, Napi::Function::New(env, [body](const Napi::CallbackInfo& info) -> Napi::Value {
                try {
                  if (info.Length() != 1 || !info[0].IsObject()) throw Error("ERR_INTERNAL", "Expected one object");
                  return body(info.Env(), info[0].As<Napi::Object>());
                } catch (const Error& error) {
                  throw to_js(info.Env(), error);
                }
              }));
}

void register_testing_attention(Napi::Env env, Napi::Object testing);
void register_testing_sampling(Napi::Env env, Napi::Object testing);
void register_testing_accept(Napi::Env env, Napi::Object testing);

}  // namespace nds::addon
