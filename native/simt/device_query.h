// Properties of an emulated device: a small one with an H100's limits.
#pragma once
#include <cstdio>
#include <cstdlib>

#include "simt/runtime.h"

struct cudaDeviceProp {
  char name[256];
  int major, minor;
  size_t totalGlobalMem;
  int multiProcessorCount;
  size_t sharedMemPerBlock, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
  int regsPerBlock, warpSize, maxThreadsPerBlock;
  int l2CacheSize;
  int pciDomainID, pciBusID, pciDeviceID;
};
enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrL2CacheSize = 38,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
struct cudaFuncAttributes {
  size_t sharedSizeBytes, constSizeBytes, localSizeBytes;
  int maxThreadsPerBlock, numRegs, maxDynamicSharedSizeBytes;
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9,
};

namespace simt {

constexpr size_t kMaxSharedBytes = 227 * 1024;

bool is_device(int device);
size_t device_memory_bytes(int device);

}  // namespace simt

inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (!simt::is_device(device)) return cudaErrorInvalidDevice;
  cudaDeviceProp p = {};
  std::snprintf(p.name, sizeof(p.name), "Emulated device %d", device);
  p.major = 9;
  p.totalGlobalMem = simt::device_memory_bytes(device);
  p.multiProcessorCount = 8;
  p.sharedMemPerBlock = 48 * 1024;
  p.sharedMemPerBlockOptin = simt::kMaxSharedBytes;
  p.sharedMemPerMultiprocessor = simt::kMaxSharedBytes + 1024;
  p.regsPerBlock = 65536;
  p.warpSize = 32;
  p.maxThreadsPerBlock = 1024;
  p.l2CacheSize = 1 << 20;
  p.pciBusID = device + 1;
  *properties = p;
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp p;
  if (cudaGetDeviceProperties(&p, device) != cudaSuccess) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = p.maxThreadsPerBlock;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = p.multiProcessorCount;
      break;
    case cudaDevAttrL2CacheSize:
      *value = p.l2CacheSize;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = p.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = p.minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(p.sharedMemPerMultiprocessor);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(p.sharedMemPerBlockOptin);
      break;
    default:
      return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetPCIBusId(char* text, int size, int device) {
  if (!simt::is_device(device)) return cudaErrorInvalidDevice;
  std::snprintf(text, static_cast<size_t>(size), "emulated:%d", device);
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetByPCIBusId(int* device, const char* text) {
  const bool is_ours = std::sscanf(text, "emulated:%d", device) == 1 && simt::is_device(*device);
  return is_ours ? cudaSuccess : cudaErrorInvalidDevice;
}

// Every device reaches every other one, unless NDS_EMULATED_PEERS=0.
inline cudaError_t cudaDeviceCanAccessPeer(int* can_access, int device, int peer) {
  if (!simt::is_device(device) || !simt::is_device(peer)) return cudaErrorInvalidDevice;
  const char* const text = std::getenv("NDS_EMULATED_PEERS");
  *can_access = device != peer && (text == nullptr || std::atoi(text) != 0);
  return cudaSuccess;
}

// CUDA 13 for both, the version whose API the emulation follows, since it has no driver.
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  *attributes = {};
  attributes->maxThreadsPerBlock = 1024;
  attributes->maxDynamicSharedSizeBytes = static_cast<int>(simt::kMaxSharedBytes);
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* num_blocks, Kernel*, int, size_t) {
  *num_blocks = 1;
  return cudaSuccess;
}
