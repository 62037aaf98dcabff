// CUDA's host API over host memory. Streams are lazy, and graphs are lists of work.
#include "simt/runtime.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "simt/stream.h"

namespace simt {
namespace {

thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;  // not sticky
thread_local int num_captures = 0;                  // begun by this thread and not ended

cudaError_t status() { return failure().is_set() ? cudaErrorLaunchFailure : cudaSuccess; }

cudaError_t refuse(const std::string& why) {
  failure().set(why);
  return cudaErrorInvalidValue;
}

// A failure that is not sticky.
cudaError_t fail_once(cudaError_t error) { return last_error = error; }

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

// Whether this thread captures a graph, which the call would invalidate; if so, sets the failure.
bool is_capturing(const char* call) {
  if (num_captures == 0) return false;
  failure().set(std::string(call) + " while this thread captures a graph");
  return true;
}

// Whether the stream exists; if not, sets the failure.
bool is_stream(Stream* stream, const char* call) {
  if (stream == nullptr) failure().set(std::string(call) + ": expected a stream but received the default stream");
  if (stream == nullptr) return false;
  if (registry().has(stream)) return true;
  failure().set(std::string(call) + ": the stream does not exist, or no longer");
  return false;
}

// With SIMT_LAUNCHES, the process appends to that file how many launches it ran, and how many of them could overlap.
struct LaunchCount {
  std::atomic<uint64_t> all{0}, overlapping{0};
  ~LaunchCount() {
    const char* const path = std::getenv("SIMT_LAUNCHES");
    std::FILE* const file = path == nullptr ? nullptr : std::fopen(path, "a");
    if (file == nullptr) return;
    std::fprintf(file, "%llu %llu\n", static_cast<unsigned long long>(all),
                 static_cast<unsigned long long>(overlapping));
    std::fclose(file);
  }
} launch_count;

cudaError_t append(Stream& stream, Work work) {
  if (stream.capture != nullptr) {
    stream.capture->work.push_back(std::move(work));
  } else {
    const std::lock_guard<std::mutex> lock(stream.mutex);
    stream.queue.push_back(std::move(work));
    stream.num_enqueued++;
  }
  return status();
}

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

bool is_device(int device) {
  int count = 0;
  cudaGetDeviceCount(&count);
  return device >= 0 && device < count;
}

size_t device_memory_bytes(int device) { return DeviceMemory::total_bytes(device); }

cudaError_t enqueue(cudaStream_t stream, Work work) {
  return is_stream(stream, "work") ? append(*stream, std::move(work)) : cudaErrorInvalidResourceHandle;
}

cudaError_t enqueue_grid(const LaunchShape& shape, std::function<void()> thread) {
  const std::string error = shape_error(shape);
  if (!error.empty()) {
    failure().set(error);
    return cudaErrorInvalidConfiguration;
  }
  return enqueue(shape.place.stream, [shape, thread = std::move(thread)] {
    launch_count.all++;
    if (shape.place.overlap_previous) launch_count.overlapping++;
    if (const char* const what = run_grid(shape, thread)) failure().set(what);
    return true;
  });
}

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

// Memory

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

// Streams

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  *stream = registry().add_stream(current_device);
  return status();
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return status();
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (!is_stream(stream, "cudaStreamDestroy")) return cudaErrorInvalidResourceHandle;
  drain(*stream, false);
  registry().remove(stream);
  return status();
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (!is_stream(stream, "cudaStreamSynchronize")) return cudaErrorInvalidResourceHandle;
  if (is_capturing("cudaStreamSynchronize")) return cudaErrorStreamCaptureUnsupported;
  drain(*stream, true);
  return status();
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (!is_stream(stream, "cudaStreamQuery")) return cudaErrorInvalidResourceHandle;
  if (is_capturing("cudaStreamQuery")) return cudaErrorStreamCaptureUnsupported;
  return drain(*stream, false) ? status() : cudaErrorNotReady;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void* argument) {
  return enqueue(stream, [=] {
    fn(argument);
    return true;
  });
}

// Events

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new Event;
  (*event)->has_timing = (flags & cudaEventDisableTiming) == 0;
  return status();
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return status();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (!is_stream(stream, "cudaEventRecord")) return cudaErrorInvalidResourceHandle;
  event->capture_id = stream->capture_id;
  if (event->capture_id != 0) return status();
  if (event->has_timing) {
    event->done_at_ns = std::make_shared<std::atomic<uint64_t>>(0);
    append(*stream, [at = event->done_at_ns] {
      *at = nanoseconds();
      return true;
    });
  }
  event->stream = stream;
  const std::lock_guard<std::mutex> lock(stream->mutex);
  event->ticket = stream->num_enqueued;
  return status();
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (is_capturing("cudaEventSynchronize")) return cudaErrorStreamCaptureUnsupported;
  if (event->capture_id != 0) return refuse("cudaEventSynchronize of an event that was recorded during a capture");
  if (event->stream != nullptr) drain(*event->stream, event->ticket, true);
  return status();
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (is_capturing("cudaEventQuery")) return cudaErrorStreamCaptureUnsupported;
  if (event->capture_id != 0) return refuse("cudaEventQuery of an event that was recorded during a capture");
  return event->stream == nullptr || drain(*event->stream, event->ticket, false) ? status() : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  for (const Event* event : {begin, end}) {
    if (!event->has_timing || event->stream == nullptr)
      return refuse("cudaEventElapsedTime of an event without a time");
    if (event->stream->num_done < event->ticket) return fail_once(cudaErrorNotReady);
  }
  *milliseconds = static_cast<float>(static_cast<double>(*end->done_at_ns - *begin->done_at_ns) * 1e-6);
  return status();
}

// Makes the stream append to the graph of a capture: a graph's work runs in the order of capture, whatever its streams.
static cudaError_t join_capture(Stream& stream, uint64_t capture_id) {
  for (const Stream* one : registry().live_streams()) {
    if (one->capture_id != capture_id) continue;
    stream.capture = one->capture;
    stream.capture_id = capture_id;
    return status();
  }
  return refuse("cudaStreamWaitEvent: the event was recorded during a capture that has ended");
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (!is_stream(stream, "cudaStreamWaitEvent")) return cudaErrorInvalidResourceHandle;
  if (event->capture_id != 0) return join_capture(*stream, event->capture_id);
  if (event->stream == nullptr) return status();
  if (stream->capture != nullptr) return refuse("cudaStreamWaitEvent: a capture waits for work that is not in it");
  return append(*stream, [other = event->stream, ticket = event->ticket] { return drain(*other, ticket, false); });
}

// Graphs

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (!is_stream(stream, "cudaStreamBeginCapture")) return cudaErrorInvalidResourceHandle;
  if (stream->capture != nullptr) return refuse("cudaStreamBeginCapture of a stream that is being captured");
  static std::atomic<uint64_t> last_capture_id{0};
  stream->capture = new Graph;
  stream->capture_id = ++last_capture_id;
  num_captures++;
  return status();
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (!is_stream(stream, "cudaStreamEndCapture")) return cudaErrorInvalidResourceHandle;
  if (stream->capture == nullptr) return refuse("cudaStreamEndCapture of a stream that is not being captured");
  *graph = stream->capture;
  num_captures--;
  for (Stream* one : registry().live_streams())
    if (one->capture == *graph) one->capture = nullptr, one->capture_id = 0;
  return status();
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* result) {
  if (!is_stream(stream, "cudaStreamIsCapturing")) return cudaErrorInvalidResourceHandle;
  *result = stream->capture != nullptr ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return status();
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new Graph(*graph);
  return status();
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  if (!is_stream(stream, "cudaGraphLaunch")) return cudaErrorInvalidResourceHandle;
  for (const Work& work : exec->work) append(*stream, work);
  return status();
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return status();
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return status();
}
