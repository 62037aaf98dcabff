// nds_cuda.so, opened at run time: the CUDA backend behind a plain C interface.
#include "addon/cuda_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "addon/cuda_leaders.h"
#include "addon/js.h"
#include "core/cuda_interface.h"
#include "core/error.h"
#include "core/program/load_spec_bytes.h"

namespace nds::addon {
namespace {

std::string library_path() {
  const char* const named = std::getenv("NDS_CUDA_LIBRARY");
  if (named != nullptr && *named != 0) return named;
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(library_path), &info) == 0) return "nds_cuda.so";
  const std::string own = info.dli_fname;
  const size_t slash = own.rfind('/');
  return slash == std::string::npos ? "nds_cuda.so" : own.substr(0, slash + 1) + "nds_cuda.so";
}

// Loads the library and never unloads it: work in flight may outlive a backend.
const NdsCudaInterface& cuda_interface() {
  const std::string path = library_path();
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw Error("ERR_CUDA", std::string("Expected the CUDA backend to load but received: ") + dlerror());
  const auto function = reinterpret_cast<NdsCudaInterfaceFunction>(dlsym(library, "nds_cuda_interface"));
  const NdsCudaInterface* const found = function == nullptr ? nullptr : function();
  if (found == nullptr || found->version != NDS_CUDA_INTERFACE_VERSION ||
      found->struct_size != sizeof(NdsCudaInterface)) {
    throw Error("ERR_CUDA", "Expected " + path + " to have version " + std::to_string(NDS_CUDA_INTERFACE_VERSION) +
                                " of its interface but received " +
                                (found == nullptr ? "none" : std::to_string(found->version)));
  }
  return *found;
}

// A copy of an error code that lives as long as the process, as Error::code must.
const char* keep_code(const char* code) {
  static std::mutex mutex;
  static std::set<std::string> codes;
  const std::lock_guard<std::mutex> lock(mutex);
  return codes.insert(code).first->c_str();
}

void check(int status, const NdsCudaError& error) {
  if (status != 0) throw Error(keep_code(error.code), error.message);
}

template <typename T>
std::vector<T> copy(const NdsCudaArray& array) {
  const T* const first = static_cast<const T*>(array.data);
  return array.count == 0 ? std::vector<T>() : std::vector<T>(first, first + array.count);
}

class RemoteCudaBackend final : public Backend {
 public:
  explicit RemoteCudaBackend(const BackendOptions& o)
      : interface_(cuda_interface()), on_loaded_(o.on_loaded), leaders_(o) {
    const NdsCudaOptions options{
        o.rank,
        o.world_size,
        o.local_rank,
        o.local_world_size,
        o.device,
        o.shm_fd,
        o.deterministic ? 1 : 0,
        o.trace ? 1 : 0,
        o.startup_timeout_ms,
        o.step_timeout_ms,
        [](void* context, int64_t num_bytes) { (*static_cast<OnLoaded*>(context))(num_bytes); },
        &on_loaded_,
        o.progress.block(),
        o.num_nodes,
        0,
        leaders_.table()};
    NdsCudaError error{};
    check(interface_.create(&options, &backend_, &error), error);
  }
  ~RemoteCudaBackend() override { interface_.destroy(backend_); }

  LoadReport load(LoadSpec spec) override {
    const std::vector<uint8_t> bytes = write_load_spec(spec);
    NdsCudaReport report{};
    NdsCudaError error{};
    check(interface_.load(backend_, bytes.data(), static_cast<int64_t>(bytes.size()), &report, &error), error);
    return {report.weight_bytes, report.kv_bytes, report.scratch_bytes};
  }
  int max_in_flight() const override { return interface_.max_in_flight(backend_); }
  void launch(int64_t step, const int32_t* directory, int64_t directory_size, const uint8_t* bytes,
              int64_t num_bytes) override {
    NdsCudaError error{};
    check(interface_.launch(backend_, step, directory, directory_size, bytes, num_bytes, &error), error);
  }
  bool is_done() override { return interface_.is_done(backend_) != 0; }
  StepResult collect() override {
    NdsCudaResult from{};
    NdsCudaError error{};
    check(interface_.collect(backend_, &from, &error), error);
    StepResult result;
    result.num_tokens = copy<int32_t>(from.num_tokens);
    result.token_ids = copy<int32_t>(from.token_ids);
    result.logits = copy<float>(from.logits);
    result.logprob_ids = copy<int32_t>(from.logprob_ids);
    result.logprobs = copy<float>(from.logprobs);
    result.logprob_ranks = copy<int32_t>(from.logprob_ranks);
    result.trace = copy<TraceEvent>(from.trace);
    result.execute_seconds = from.stats[0];
    result.wait_seconds = from.stats[1];
    result.exchanged_bytes = from.stats[2];
    result.all_reduce_bytes = from.stats[3];
    result.start_seconds = from.stats[4];
    result.end_seconds = from.stats[5];
    result.draft_seconds = from.stats[6];
    result.plan_hash = from.plan_hash;
    result.output_hash = from.output_hash;
    return result;
  }
  void abort() override { interface_.abort(backend_); }

 private:
  const NdsCudaInterface& interface_;
  OnLoaded on_loaded_;
  LeadersForCuda leaders_;
  NdsCudaBackend* backend_ = nullptr;
};

std::string version_text(int32_t version) {
  return version <= 0 ? "" : std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

Napi::Array describe_devices(Napi::Env env, const NdsCudaInfo& info) {
  Napi::Array devices = Napi::Array::New(env);
  for (int i = 0; i < info.num_devices; i++) {
    const NdsCudaDevice& from = info.devices[i];
    Napi::Object device = Napi::Object::New(env);
    device.Set("name", from.name);
    device.Set("pciBusId", from.pci_bus_id);
    device.Set("computeCapability", std::to_string(from.major) + "." + std::to_string(from.minor));
    device.Set("numMultiprocessors", from.num_multiprocessors);
    device.Set("totalBytes", static_cast<double>(from.total_bytes));
    const auto free_bytes = Napi::Number::New(env, static_cast<double>(from.free_bytes));
    device.Set("freeBytes", from.free_bytes < 0 ? env.Null() : Napi::Value(free_bytes));
    devices.Set(i, device);
  }
  return devices;
}

Napi::Array describe_libraries(Napi::Env env, const NdsCudaInfo& info) {
  Napi::Array libraries = Napi::Array::New(env);
  for (int i = 0; i < info.num_libraries; i++) {
    const NdsCudaLibrary& from = info.libraries[i];
    Napi::Object library = Napi::Object::New(env);
    library.Set("name", from.name);
    library.Set("path", *from.path != 0 ? Napi::Value(Napi::String::New(env, from.path)) : env.Null());
    library.Set("version", *from.version != 0 ? Napi::Value(Napi::String::New(env, from.version)) : env.Null());
    library.Set("reason", *from.reason != 0 ? Napi::Value(Napi::String::New(env, from.reason)) : env.Null());
    libraries.Set(i, library);
  }
  return libraries;
}

}  // namespace

std::unique_ptr<Backend> make_remote_cuda_backend(const BackendOptions& options) {
  return std::make_unique<RemoteCudaBackend>(options);
}

Napi::Value cuda_info(const Napi::CallbackInfo& call) {
  const Napi::Env env = call.Env();
  Napi::Object result = Napi::Object::New(env);
  static NdsCudaInfo info;
  info = {};
  std::string reason;
  try {
    NdsCudaError error{};
    const int32_t device = call.Length() > 0 && call[0].IsNumber() ? call[0].As<Napi::Number>().Int32Value() : -1;
    check(cuda_interface().info(device, &info, &error), error);
    if (info.num_devices == 0) reason = "Expected a CUDA device but found none";
  } catch (const std::exception& thrown) {
    reason = thrown.what();
  }
  result.Set("path", library_path());
  result.Set("reason", reason.empty() ? env.Null() : Napi::Value(Napi::String::New(env, reason)));
  result.Set("isEmulated", info.is_emulated != 0);
  result.Set("driverVersion", version_text(info.driver_version));
  result.Set("runtimeVersion", version_text(info.runtime_version));
  result.Set("devices", describe_devices(env, info));
  result.Set("libraries", describe_libraries(env, info));
  return result;
}

}  // namespace nds::addon
