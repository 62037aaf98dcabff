// nds_cuda.so, opened at run time: the CUDA backend behind a plain C interface.
#pragma once
#include <napi.h>

#include <memory>

#include "core/backend.h"

namespace nds::addon {

// A backend of nds_cuda.so, which lies beside nds.node or at the path in NDS_CUDA_LIBRARY.
// @throws Error ERR_CUDA naming the reason if the library does not load or has another interface version.
std::unique_ptr<Backend> make_remote_cuda_backend(const BackendOptions& options);

// cudaInfo() → CudaInfo of rank/native.ts
Napi::Value cuda_info(const Napi::CallbackInfo& info);

}  // namespace nds::addon
