// CUDA's host API: errors and devices.
#include "simt/runtime.h"

#include <cstdlib>

#include "simt/host_api.h"

namespace simt {
namespace {

struct ErrorText {
  cudaError_t error;
  const char* name;
  const char* text;
};
constexpr ErrorText error_texts[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
};

}  // namespace

bool is_device(int device) {
  int count = 0;
  cudaGetDeviceCount(&count);
  return device >= 0 && device < count;
}

size_t device_memory_bytes(int device) { return DeviceMemory::total_bytes(device); }

}  // namespace simt

using namespace simt;

// Errors

static const ErrorText& error_of(cudaError_t error) {
  static constexpr ErrorText unknown{cudaSuccess, "unrecognized error code", "unrecognized error code"};
  for (const ErrorText& one : error_texts)
    if (one.error == error) return one;
  return unknown;
}

const char* cudaGetErrorName(cudaError_t error) { return error_of(error).name; }

cudaError_t cudaPeekAtLastError() { return failure().is_set() ? cudaErrorLaunchFailure : last_error; }

cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  last_error = cudaSuccess;
  return error;
}

cudaError_t cudaDeviceReset() {
  failure().clear();
  last_error = cudaSuccess;
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
  const bool is_harmless = error == cudaSuccess || error == cudaErrorMemoryAllocation || error == cudaErrorNoDevice ||
                           error == cudaErrorInvalidDevice || error == cudaErrorNotReady;
  const char* const text = failure().text();
  return is_harmless || text == nullptr ? error_of(error).text : text;
}

// Devices

cudaError_t cudaGetDeviceCount(int* count) {
  const char* const text = std::getenv("NDS_EMULATED_DEVICES");
  *count = text != nullptr ? std::atoi(text) : 1;
  return *count > 0 ? cudaSuccess : fail_once(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
  if (!is_device(device)) return fail_once(cudaErrorInvalidDevice);
  current_device = device;
  return status();
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return status();
}

cudaError_t cudaDeviceSynchronize() {
  if (is_capturing("cudaDeviceSynchronize")) return cudaErrorStreamCaptureUnsupported;
  for (Stream* stream : registry().live_streams())
    if (stream->device == current_device) drain(*stream, true);
  return status();
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  *total_bytes = DeviceMemory::total_bytes(current_device);
  const size_t used = device_memory().used_bytes(current_device);
  *free_bytes = used < *total_bytes ? *total_bytes - used : 0;
  return status();
}
