// nds_cuda.so's one symbol: the interface of core/cuda_interface.h over the backend.
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "core/backend.h"
#include "core/cuda_interface.h"
#include "core/error.h"
#include "core/program/load_spec_bytes.h"
#include "cuda/blas.h"
#include "cuda/device.h"
#include "cuda/libraries.h"
#include "cuda/remote_leaders.h"

struct NdsCudaBackend {
  std::unique_ptr<nds::Backend> backend;
  nds::StepResult result;  // owns the arrays that the last collect returned
};

namespace {

template <size_t size>
void copy_text(char (&to)[size], const std::string& text) {
  std::snprintf(to, size, "%s", text.c_str());
}

// No exception leaves the library.
template <typename Body>
int guarded(NdsCudaError* error, Body body) {
  try {
    body();
    return 0;
  } catch (const nds::Error& thrown) {
    copy_text(error->code, thrown.code);
    copy_text(error->message, thrown.what());
  } catch (const std::bad_alloc&) {
    copy_text(error->code, "ERR_SYSTEM");
    copy_text(error->message, "Expected enough memory but the system refused");
  } catch (const std::exception& thrown) {
    copy_text(error->code, "ERR_INTERNAL");
    copy_text(error->message, thrown.what());
  }
  return 1;
}

void describe(NdsCudaLibrary& to, const char* name, const nds::cuda::Library& library, const std::string& version) {
  copy_text(to.name, name);
  copy_text(to.path, library.path);
  copy_text(to.version, version);
  copy_text(to.reason, library.reason);
}

int info(int32_t wanted, NdsCudaInfo* info, NdsCudaError* error) {
  return guarded(error, [&] {
    *info = {};
#if defined(NDS_EMULATED)
    info->is_emulated = 1;
#endif
    const nds::cuda::Library blas = nds::cuda::open_cublaslt(), nccl = nds::cuda::open_nccl();
    info->num_libraries = 2;
    describe(info->libraries[0], "cuBLASLt", blas, nds::cuda::cublaslt_version(blas));
    describe(info->libraries[1], "NCCL", nccl, nds::cuda::nccl_version(nccl));
    cudaDriverGetVersion(&info->driver_version);
    cudaRuntimeGetVersion(&info->runtime_version);
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    cudaGetLastError();
    if (status != cudaSuccess) {
      throw nds::Error("ERR_CUDA", std::string("Expected CUDA devices but received: ") + cudaGetErrorString(status));
    }
    info->num_devices = count < 64 ? count : 64;
    for (int i = 0; i < info->num_devices; i++) {
      NdsCudaDevice& device = info->devices[i];
      cudaDeviceProp properties;
      if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
      copy_text(device.name, properties.name);
      device.major = properties.major;
      device.minor = properties.minor;
      device.num_multiprocessors = properties.multiProcessorCount;
      device.total_bytes = static_cast<int64_t>(properties.totalGlobalMem);
      char bus[32] = {0};
      if (cudaDeviceGetPCIBusId(bus, sizeof(bus), i) == cudaSuccess) copy_text(device.pci_bus_id, bus);
      device.free_bytes = -1;
      size_t free_bytes = 0, total_bytes = 0;
      if (wanted >= 0 && wanted % info->num_devices == i && cudaSetDevice(i) == cudaSuccess &&
          cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess) {
        device.free_bytes = static_cast<int64_t>(free_bytes);
        device.total_bytes = static_cast<int64_t>(total_bytes);
      }
    }
  });
}

int create(const NdsCudaOptions* from, NdsCudaBackend** backend, NdsCudaError* error) {
  return guarded(error, [&] {
    nds::BackendOptions options;
    options.rank = from->rank;
    options.world_size = from->world_size;
    options.local_rank = from->local_rank;
    options.local_world_size = from->local_world_size;
    options.device = from->device;
    options.shm_fd = from->shm_fd;
    options.deterministic = from->deterministic != 0;
    options.trace = from->trace != 0;
    options.startup_timeout_ms = from->startup_timeout_ms;
    options.step_timeout_ms = from->step_timeout_ms;
    options.num_nodes = from->num_nodes;
    if (from->leaders != nullptr) options.leaders = nds::cuda::remote_leaders(*from->leaders);
    options.progress = nds::Progress(static_cast<nds::StateBlock*>(from->state));
    if (from->on_loaded != nullptr) {
      options.on_loaded = [call = from->on_loaded, context = from->context](int64_t bytes) { call(context, bytes); };
    }
    *backend = new NdsCudaBackend{nds::make_cuda_backend(options), {}};
  });
}

void destroy(NdsCudaBackend* backend) { delete backend; }

int load(NdsCudaBackend* backend, const uint8_t* spec, int64_t num_bytes, NdsCudaReport* report, NdsCudaError* error) {
  return guarded(error, [&] {
    const nds::LoadReport loaded = backend->backend->load(nds::read_load_spec(spec, num_bytes));
    *report = {loaded.weight_bytes, loaded.kv_bytes, loaded.scratch_bytes};
  });
}

int32_t max_in_flight(NdsCudaBackend* backend) { return backend->backend->max_in_flight(); }

int launch(NdsCudaBackend* backend, int64_t step, const int32_t* directory, int64_t directory_size,
           const uint8_t* bytes, int64_t num_bytes, NdsCudaError* error) {
  return guarded(error, [&] { backend->backend->launch(step, directory, directory_size, bytes, num_bytes); });
}

int32_t is_done(NdsCudaBackend* backend) { return backend->backend->is_done() ? 1 : 0; }

template <typename T>
NdsCudaArray array_of(const std::vector<T>& list) {
  return {list.data(), static_cast<int64_t>(list.size())};
}

int collect(NdsCudaBackend* backend, NdsCudaResult* to, NdsCudaError* error) {
  return guarded(error, [&] {
    backend->result = backend->backend->collect();
    const nds::StepResult& r = backend->result;
    *to = {array_of(r.num_tokens),
           array_of(r.token_ids),
           array_of(r.logits),
           array_of(r.logprob_ids),
           array_of(r.logprobs),
           array_of(r.logprob_ranks),
           array_of(r.trace),
           {r.execute_seconds, r.wait_seconds, r.exchanged_bytes, r.all_reduce_bytes, r.start_seconds, r.end_seconds,
            r.draft_seconds},
           r.plan_hash,
           r.output_hash};
  });
}

void abort_backend(NdsCudaBackend* backend) { backend->backend->abort(); }

const NdsCudaInterface kInterface = {NDS_CUDA_INTERFACE_VERSION,
                                     sizeof(NdsCudaInterface),
                                     info,
                                     create,
                                     destroy,
                                     load,
                                     max_in_flight,
                                     launch,
                                     is_done,
                                     collect,
                                     abort_backend};

}  // namespace

extern "C" __attribute__((visibility("default"))) const NdsCudaInterface* nds_cuda_interface(void) {
  return &kInterface;
}
