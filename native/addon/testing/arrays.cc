// Shared by the operators of `testing`: their arguments as plain arrays, and matrices of any dtype made from them.
#include "addon/testing/arrays.h"

#include <cmath>
#include <cstring>

#include "core/convert.h"

namespace nds::addon {
namespace {

uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// To nearest, ties to even; infinity from 65520 on, halfway past the largest fp16.
uint16_t to_f16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::abs(value);
  if (std::isnan(value)) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 65520.0f) return static_cast<uint16_t>(sign | 0x7c00);
  // Denormals are multiples of 2^-24; other values have 11 significant bits. A carry of the rounding moves into the
  // exponent by itself.
  const int exponent = magnitude < 0x1p-14f ? -14 : std::ilogb(magnitude);
  const int mantissa = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return static_cast<uint16_t>(sign | (((exponent + 14) << 10) + mantissa));
}

[[noreturn]] void refuse(const char* key, const std::string& expected) {
  throw Error("ERR_INTERNAL", std::string("Expected property ") + key + " to be " + expected);
}

}  // namespace

const cpu::Kernels& get_kernels(const Napi::Object& options) {
  const std::string name = get_string(options, "isa");
  const cpu::IsaList& isas = cpu::available_isas();
  for (int i = 0; i < isas.count; i++) {
    if (name == isas.tables[i]->name) return *isas.tables[i];
  }
  throw Error("ERR_INTERNAL", "Expected an available instruction set but received " + name);
}

DType get_dtype(const Napi::Object& options, const char* key) {
  const std::string name = get_string(options, key);
  if (name == "float32") return DType::f32;
  if (name == "bfloat16") return DType::bf16;
  if (name == "float16") return DType::f16;
  refuse(key, "float32, bfloat16 or float16");
}

Napi::Float32Array get_floats(const Napi::Object& options, const char* key, int64_t length) {
  const Napi::Value value = member(options, key);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array ||
      static_cast<int64_t>(value.As<Napi::TypedArray>().ElementLength()) != length) {
    refuse(key, "a Float32Array of " + std::to_string(length));
  }
  return value.As<Napi::Float32Array>();
}

std::vector<int32_t> get_ints(const Napi::Object& options, const char* key) {
  const Napi::Value value = member(options, key);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_int32_array) {
    refuse(key, "an Int32Array");
  }
  const Napi::Int32Array array = value.As<Napi::Int32Array>();
  return std::vector<int32_t>(array.Data(), array.Data() + array.ElementLength());
}

uint64_t get_uint64(const Napi::Object& options, const char* key) {
  const Napi::Value value = member(options, key);
  if (!value.IsBigInt()) refuse(key, "a bigint");
  bool lossless = false;
  const uint64_t result = value.As<Napi::BigInt>().Uint64Value(&lossless);
  if (!lossless) refuse(key, "a bigint from 0 to 2^64 - 1");
  return result;
}

float get_float(const Napi::Object& options, const char* key) { return static_cast<float>(get_double(options, key)); }

void store_rounded(float value, DType dtype, uint8_t* to) {
  if (dtype == DType::f32) {
    std::memcpy(to, &value, 4);
  } else {
    const uint16_t half = dtype == DType::bf16 ? to_bf16(value) : to_f16(value);
    std::memcpy(to, &half, 2);
  }
}

TestMatrix::TestMatrix(int64_t rows, int64_t ld, DType dtype)
    : bytes_(static_cast<size_t>(rows * ld) * dtype_size(dtype), 0xff), rows_(rows), ld_(ld), dtype_(dtype) {}

TestMatrix::TestMatrix(const Napi::Float32Array& values, int64_t rows, int64_t width, int64_t ld, DType dtype)
    : TestMatrix(rows, ld, dtype) {
  for (int64_t i = 0; i < rows * width; i++) {
    store_rounded(values.Data()[i], dtype,
                  bytes_.data() + static_cast<size_t>(i / width * ld + i % width) * dtype_size(dtype));
  }
}

Napi::Float32Array TestMatrix::to_js_array(Napi::Env env) const {
  Napi::Float32Array result = Napi::Float32Array::New(env, static_cast<size_t>(rows_ * ld_));
  widen(bytes_.data(), dtype_, rows_ * ld_, result.Data());
  return result;
}

}  // namespace nds::addon
