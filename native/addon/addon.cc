// The exports to JavaScript: `Addon` of rank/native.ts.
#include <dlfcn.h>
#include <napi.h>

#include <fstream>
#include <string>

#include "addon/cuda_library.h"
#include "addon/guard.h"
#include "addon/js.h"
#include "addon/mesh.h"
#include "addon/runner.h"
#include "addon/testing/testing.h"
#include "core/program/packed_linear.h"
#include "cpu/isa.h"
#include "cpu/thread_pool.h"

namespace nds::addon {
namespace {

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

Napi::Value cpu_info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translated(env, [&]() -> Napi::Value {
    const cpu::IsaList& isas = cpu::available_isas();
    Napi::Array names = Napi::Array::New(env);
    for (int i = 0; i < isas.count; i++) names.Set(i, isas.tables[i]->name);
    Napi::Object result = Napi::Object::New(env);
    result.Set("isas", names);
    result.Set("isa", cpu::selected_isa().name);
    result.Set("model", processor_name());
    result.Set("allowedCores", static_cast<double>(cpu::allowed_cores().size()));
    return result;
  });
}

// Keeps the addon loaded: a worker thread of Node unloads its addons when it ends, and an executor in mid-step may
// outlive it.
void stay_loaded() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(stay_loaded), &info) != 0) dlopen(info.dli_fname, RTLD_LAZY | RTLD_NODELETE);
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  stay_loaded();
  exports.Set("cpuInfo", Napi::Function::New(env, cpu_info));
  exports.Set("cudaInfo", Napi::Function::New(env, cuda_info));
  exports.Set("guardProcess", Napi::Function::New(env, guard_process));
  exports.Set("listenMesh", Napi::Function::New(env, listen_mesh));
  exports.Set("createRunner", Napi::Function::New(env, create_runner));
  exports.Set("packedLayout", Napi::Number::New(env, kPackedLayout));
  Napi::Object testing = Napi::Object::New(env);
  register_testing_linear(env, testing);
  register_testing_ops(env, testing);
  register_testing_comm(env, testing);
  register_testing_comm_bench(env, testing);
  register_testing_probe(env, testing);
  register_testing_load_spec(env, testing);
  register_testing_slice(env, testing);
  exports.Set("testing", testing);
  return exports;
}

NODE_API_MODULE(nds, init)

}  // namespace
}  // namespace nds::addon
