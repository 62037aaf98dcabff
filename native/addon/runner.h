// `Runner` of rank/native.ts: a backend behind the executor thread of its rank.
#pragma once
#include <napi.h>

namespace nds::addon {

// createRunner(options) → Runner
Napi::Value create_runner(const Napi::CallbackInfo& info);

}  // namespace nds::addon
