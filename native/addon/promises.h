// Jobs of an executor that settle a promise.
#pragma once
#include <napi.h>

#include <functional>
#include <memory>
#include <utility>

#include "addon/executor.h"
#include "addon/js.h"

namespace nds::addon {

using Deferred = std::shared_ptr<Napi::Promise::Deferred>;

inline Deferred defer(Napi::Env env) {
  return std::make_shared<Napi::Promise::Deferred>(Napi::Promise::Deferred::New(env));
}

inline Settle reject(const Deferred& deferred, const Error& error) {
  return [deferred, error](Napi::Env env) { deferred->Reject(to_js(env, error).Value()); };
}

// Resolves with make(env), or rejects with the error it throws.
template <typename Make>
Settle resolve(const Deferred& deferred, Make make) {
  return [deferred, make = std::move(make)](Napi::Env env) {
    try {
      deferred->Resolve(make(env));
    } catch (const Napi::Error& error) {
      deferred->Reject(error.Value());
    }
  };
}

// Runs body on the executor thread; an exception rejects the promise.
template <typename Body>
std::function<Settle()> guarded(const Deferred& deferred, Body body) {
  return [deferred, body = std::move(body)]() mutable -> Settle {
    try {
      return body();
    } catch (const std::exception& thrown) {
      return reject(deferred, as_error(thrown));
    }
  };
}

}  // namespace nds::addon
