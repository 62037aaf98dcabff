// Reads JavaScript values, with errors that name what was expected, and translates native errors.
#pragma once
#include <napi.h>

#include <cmath>
#include <new>
#include <string>
#include <system_error>

#include "core/error.h"

namespace nds::addon {

// A JavaScript Error with the native error's code as its `code`.
inline Napi::Error to_js(Napi::Env env, const Error& error) {
  Napi::Error result = Napi::Error::New(env, error.what());
  result.Set("code", Napi::String::New(env, error.code));
  return result;
}

// Any exception of native code as an Error with a code.
inline Error as_error(const std::exception& thrown) {
  if (const auto* error = dynamic_cast<const Error*>(&thrown)) return *error;
  if (dynamic_cast<const std::bad_alloc*>(&thrown) != nullptr)
    return Error("ERR_SYSTEM", "Expected enough memory but an allocation failed");
  const bool is_system = dynamic_cast<const std::system_error*>(&thrown) != nullptr;
  return Error(is_system ? "ERR_SYSTEM" : "ERR_INTERNAL", thrown.what());
}

// Returns body(), translating native errors: any other exception that leaves a callback would end the process.
template <typename Body>
auto translated(Napi::Env env, Body body) -> decltype(body()) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& thrown) {
    throw to_js(env, as_error(thrown));
  }
}

inline Napi::Value member(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (value.IsUndefined()) throw Error("ERR_INTERNAL", std::string("Expected property ") + key + " but it is missing");
  return value;
}

inline Napi::Object get_object(const Napi::Object& object, const char* key) {
  const Napi::Value value = member(object, key);
  if (!value.IsObject()) throw Error("ERR_INTERNAL", std::string("Expected property ") + key + " to be an object");
  return value.As<Napi::Object>();
}

inline Napi::Array get_array(const Napi::Object& object, const char* key) {
  const Napi::Value value = member(object, key);
  if (!value.IsArray()) throw Error("ERR_INTERNAL", std::string("Expected property ") + key + " to be an array");
  return value.As<Napi::Array>();
}

inline double get_double(const Napi::Object& object, const char* key) {
  const Napi::Value value = member(object, key);
  if (!value.IsNumber()) throw Error("ERR_INTERNAL", std::string("Expected property ") + key + " to be a number");
  return value.As<Napi::Number>().DoubleValue();
}

inline int64_t get_int64(const Napi::Object& object, const char* key) {
  const double value = get_double(object, key);
  if (value != std::floor(value) || std::abs(value) > 9007199254740991.0) {
    throw Error("ERR_INTERNAL",
                std::string("Expected property ") + key + " to be an integer but received " + std::to_string(value));
  }
  return static_cast<int64_t>(value);
}

inline int get_int(const Napi::Object& object, const char* key) {
  const int64_t value = get_int64(object, key);
  if (value < INT32_MIN || value > INT32_MAX)
    throw Error("ERR_INTERNAL",
                std::string("Expected property ") + key + " to fit 32 bits but received " + std::to_string(value));
  return static_cast<int>(value);
}

// A typed array whose element type is checked, which Napi::TypedArrayOf itself does not do.
template <typename Array>
Array as_typed_array(const Napi::Value& value, napi_typedarray_type type, const char* what) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type)
    throw Error("ERR_INTERNAL", std::string("Expected ") + what + " to be a typed array of another type");
  return value.As<Array>();
}

inline bool get_bool(const Napi::Object& object, const char* key) {
  const Napi::Value value = member(object, key);
  if (!value.IsBoolean()) throw Error("ERR_INTERNAL", std::string("Expected property ") + key + " to be a boolean");
  return value.As<Napi::Boolean>().Value();
}

inline std::string get_string(const Napi::Object& object, const char* key) {
  const Napi::Value value = member(object, key);
  if (!value.IsString()) throw Error("ERR_INTERNAL", std::string("Expected property ") + key + " to be a string");
  return value.As<Napi::String>().Utf8Value();
}

}  // namespace nds::addon
