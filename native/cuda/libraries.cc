// Shared libraries that are opened at run time.
#include "cuda/libraries.h"

#include <dlfcn.h>
#include <glob.h>
#include <limits.h>
#include <link.h>
#include <stdlib.h>
#include <sys/stat.h>

namespace nds::cuda {
namespace {

std::string variable_or_empty(const char* name) {
  const char* const value = getenv(name);
  return value == nullptr ? "" : value;
}

bool is_folder(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

void add_matches(const std::string& pattern, std::vector<std::string>& paths) {
  glob_t found;
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; i++) paths.emplace_back(found.gl_pathv[i]);
  }
  globfree(&found);
}

// VIRTUAL_ENV, CONDA_PREFIX, and <prefix> of <prefix>/bin/python3 for the first python3 on PATH, whose links are not
// resolved.
std::vector<std::string> python_prefixes() {
  std::vector<std::string> prefixes;
  for (const char* name : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    const std::string prefix = variable_or_empty(name);
    if (!prefix.empty()) prefixes.push_back(prefix);
  }
  const std::string path = variable_or_empty("PATH");
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = path.find(':', begin) == std::string::npos ? path.size() : path.find(':', begin);
    const std::string folder = path.substr(begin, end - begin), program = folder + "/python3";
    begin = end + 1;
    struct stat status;
    if (stat(program.c_str(), &status) != 0) continue;
    const size_t slash = folder.rfind('/');
    if (slash != std::string::npos && slash > 0) prefixes.push_back(folder.substr(0, slash));
    break;
  }
  return prefixes;
}

std::string dotted(int major, int minor, int patch) {
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
}

}  // namespace

std::vector<std::string> library_candidates(const char* variable, const std::vector<std::string>& names) {
  const std::string named = variable_or_empty(variable);
  std::vector<std::string> paths;
  if (!named.empty()) {
    if (!is_folder(named)) return {named};
    for (const std::string& name : names) paths.push_back(named + "/" + name);
    return paths;
  }
  for (const std::string& name : names) paths.push_back(name);
  for (const std::string& name : names) add_matches("/usr/local/cuda*/lib64/" + name, paths);
  for (const std::string& prefix : python_prefixes()) {
    for (const std::string& name : names) {
      add_matches(prefix + "/lib/python3*/site-packages/nvidia/*/lib/" + name, paths);
      add_matches(prefix + "/lib/python3*/dist-packages/nvidia/*/lib/" + name, paths);
    }
  }
  return paths;
}

Library open_library(const char* variable, const std::vector<std::string>& names) {
  Library library;
  for (const std::string& path : library_candidates(variable, names)) {
    library.handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library.handle == nullptr) {
      const char* const text = dlerror();
      if (library.reason.empty() || path.find('/') != std::string::npos) library.reason = text == nullptr ? path : text;
      continue;
    }
    link_map* map = nullptr;
    const bool is_known = dlinfo(library.handle, RTLD_DI_LINKMAP, &map) == 0 && map != nullptr && *map->l_name != 0;
    library.path = is_known ? map->l_name : path;
    library.reason.clear();
    return library;
  }
  library.reason += " (set " + std::string(variable) + " to the library or its folder)";
  return library;
}

Library open_cublaslt() { return open_library("NDS_CUBLAS_PATH", {"libcublasLt.so.13", "libcublasLt.so.12"}); }
Library open_nccl() { return open_library("NDS_NCCL_PATH", {"libnccl.so.2"}); }

std::string cublaslt_version(const Library& library) {
  using Function = size_t (*)();
  const auto version =
      library.handle == nullptr ? nullptr : reinterpret_cast<Function>(dlsym(library.handle, "cublasLtGetVersion"));
  if (version == nullptr) return "";
  // major * 10000 + minor * 100 + patch: 130001 is 13.0.1.
  return dotted(static_cast<int>(version() / 10000), static_cast<int>(version() / 100 % 100),
                static_cast<int>(version() % 100));
}

std::string nccl_version(const Library& library) {
  using Function = int (*)(int*);
  const auto function =
      library.handle == nullptr ? nullptr : reinterpret_cast<Function>(dlsym(library.handle, "ncclGetVersion"));
  int version = 0;
  if (function == nullptr || function(&version) != 0) return "";
  return dotted(version / 10000, version / 100 % 100, version % 100);
}

}  // namespace nds::cuda
