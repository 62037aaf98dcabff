// Single operators and collectives on plain arrays, for tests and benchmarks.
#pragma once
#include <napi.h>

namespace nds::addon {

void register_testing_linear(Napi::Env env, Napi::Object testing);
void register_testing_ops(Napi::Env env, Napi::Object testing);
void register_testing_comm(Napi::Env env, Napi::Object testing);
void register_testing_comm_bench(Napi::Env env, Napi::Object testing);
void register_testing_probe(Napi::Env env, Napi::Object testing);
void register_testing_load_spec(Napi::Env env, Napi::Object testing);
void register_testing_slice(Napi::Env env, Napi::Object testing);

}  // namespace nds::addon
