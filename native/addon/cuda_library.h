// nds_cuda.so, opened at run time: the CUDA backend behind a plain C interface.
#pragma once
#include <napi.h>

#include <memory>

#include "core/backend.h"

namespace nds::addon {

// A backend in nds_cuda.so, which lies beside nds.node or where NDS_CUDA_LIBRARY says.
// @throws Error ERR_CUDA that says why there is none.
std::unique_ptr<Backend> make_remote_cuda_backend(const BackendOptions& options);

// cudaInfo() → CudaInfo of rank/native.ts
Napi::Value cuda_info(const Napi::CallbackInfo& info);

}  // namespace nds::addon
