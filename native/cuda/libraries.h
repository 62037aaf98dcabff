// Shared libraries that are opened at run time, so that no header and no version is pinned.
#pragma once
#include <string>
#include <vector>

namespace nds::cuda {

struct Library {
  void* handle = nullptr;
  std::string path;    // as the loader resolved it; empty when it was not found
  std::string reason;  // why it was not found
};

// Candidate paths, in the order in which they are tried. Where the environment variable is set: only the file, or the
// folder, that it names. Else: the loader's own search; /usr/local/cuda*/lib64; site-packages/nvidia/*/lib of the
// Python environment (VIRTUAL_ENV, CONDA_PREFIX, then the python3 on PATH).
std::vector<std::string> library_candidates(const char* variable, const std::vector<std::string>& names);

// Opens the first candidate that loads; where none does, `reason` says why. A library that the variable names is never
// replaced by another.
Library open_library(const char* variable, const std::vector<std::string>& names);

Library open_cublaslt();  // NDS_CUBLAS_PATH, libcublasLt.so.13 or .12
Library open_nccl();      // NDS_NCCL_PATH, libnccl.so.2

// As "13.0.1"; empty where the library is not there.
std::string cublaslt_version(const Library& library);
std::string nccl_version(const Library& library);

}  // namespace nds::cuda
