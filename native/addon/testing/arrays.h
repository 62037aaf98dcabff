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
