// CUDA's host API: memory and copies, over host memory.
#include <cstdlib>
#include <cstring>
#include <string>

#include "simt/host_api.h"

namespace simt {
namespace {

bool matches(const void* address, size_t bytes, bool on_device) {
  return device_memory().place_of(address, bytes) == (on_device ? Place::device : Place::host);
}

// Why a copy of `rows` rows is refused; empty if it is not.
std::string copy_error(const void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows,
                       cudaMemcpyKind kind) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (to_pitch < width || from_pitch < width) return "a pitch is less than the width";
  if (!matches(to, (rows - 1) * to_pitch + width, to_device))
    return to_device ? "the destination is not in one array of device memory" : "the destination is not host memory";
  if (!matches(from, (rows - 1) * from_pitch + width, from_device))
    return from_device ? "the source is not in one array of device memory" : "the source is not host memory";
  return "";
}

void copy_rows(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows) {
  for (size_t row = 0; row < rows; row++)
    std::memcpy(static_cast<uint8_t*>(to) + row * to_pitch, static_cast<const uint8_t*>(from) + row * from_pitch,
                width);
}

}  // namespace
}  // namespace simt

using namespace simt;

cudaError_t cudaMalloc(void** address, size_t bytes) {
  if (is_capturing("cudaMalloc")) return cudaErrorStreamCaptureUnsupported;
  *address = device_memory().allocate(bytes, current_device);
  return *address != nullptr ? status() : fail_once(cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void* address) {
  if (address == nullptr) return status();
  if (is_capturing("cudaFree")) return cudaErrorStreamCaptureUnsupported;
  const int device = device_memory().device_of(address);
  if (device < 0) return refuse("cudaFree of memory that cudaMalloc did not give");
  for (Stream* stream : registry().live_streams())
    if (stream->device == device) drain(*stream, true);  // cudaFree waits for the device
  device_memory().release(address);
  return status();
}

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* address) {
  if (is_capturing("cudaIpcGetMemHandle")) return cudaErrorStreamCaptureUnsupported;
  const int device = device_memory().device_of(address);
  for (Stream* stream : registry().live_streams())
    if (stream->device == device) drain(*stream, true);  // the array moves
  ExportedArray shared;
  static_assert(sizeof(shared) <= sizeof(*handle));
  if (device < 0 || !device_memory().share(address, shared)) return fail_once(cudaErrorInvalidValue);
  *handle = {};
  std::memcpy(handle, &shared, sizeof(shared));
  return status();
}

cudaError_t cudaIpcOpenMemHandle(void** address, cudaIpcMemHandle_t handle, unsigned flags) {
  if (flags != cudaIpcMemLazyEnablePeerAccess) return fail_once(cudaErrorInvalidValue);
  ExportedArray shared;
  std::memcpy(&shared, &handle, sizeof(shared));
  *address = device_memory().open(shared);
  return *address != nullptr ? status() : fail_once(cudaErrorInvalidResourceHandle);
}

cudaError_t cudaIpcCloseMemHandle(void* address) {
  cudaDeviceSynchronize();
  return device_memory().close(address) ? status() : fail_once(cudaErrorInvalidValue);
}

cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) {
  if (is_capturing("cudaHostAlloc")) return cudaErrorStreamCaptureUnsupported;
  *address = std::malloc(bytes > 0 ? bytes : 1);
  if (*address == nullptr) return fail_once(cudaErrorMemoryAllocation);
  std::memset(*address, kPoison, bytes);
  return status();
}

cudaError_t cudaMallocHost(void** address, size_t bytes) { return cudaHostAlloc(address, bytes, cudaHostAllocDefault); }

cudaError_t cudaFreeHost(void* address) {
  std::free(address);
  return status();
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (is_capturing("cudaMemcpy")) return cudaErrorStreamCaptureUnsupported;
  if (bytes == 0 || failure().is_set()) return status();
  const std::string error = copy_error(to, bytes, from, bytes, bytes, 1, kind);
  if (!error.empty()) return refuse("cudaMemcpy: " + error);
  device_memory().set_access(true);
  std::memcpy(to, from, bytes);  // orders nothing: our streams do not wait for the default stream
  device_memory().set_access(false);
  return status();
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width_bytes,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  if (width_bytes == 0 || height == 0) return status();
  const std::string error = copy_error(to, to_pitch, from, from_pitch, width_bytes, height, kind);
  if (!error.empty())
    return refuse("copy of " + std::to_string(height) + " x " + std::to_string(width_bytes) + " bytes: " + error);
  if (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyHostToHost)  // poison until a wait runs the copy
    for (size_t row = 0; row < height; row++)
      std::memset(static_cast<uint8_t*>(to) + row * to_pitch, kPoison, width_bytes);
  return enqueue(stream, [=] {
    copy_rows(to, to_pitch, from, from_pitch, width_bytes, height);
    return true;
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  if (is_capturing("cudaMemset")) return cudaErrorStreamCaptureUnsupported;
  if (bytes == 0 || failure().is_set()) return status();
  if (!matches(to, bytes, true)) return refuse("cudaMemset outside one array of device memory");
  device_memory().set_access(true);
  std::memset(to, value, bytes);
  device_memory().set_access(false);
  return status();
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return status();
  if (!matches(to, bytes, true)) return refuse("cudaMemsetAsync outside one array of device memory");
  return enqueue(stream, [=] { return std::memset(to, value, bytes) != nullptr; });
}
