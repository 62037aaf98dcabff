// CUDA's host API over host memory, with lazy streams and graphs that are lists of work.
#include "simt/runtime.h"

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#if defined(SIMT_ASAN)
extern "C" void __asan_poison_memory_region(const volatile void*, size_t);
extern "C" void __asan_unpoison_memory_region(const volatile void*, size_t);
#else
static void __asan_poison_memory_region(const volatile void*, size_t) {}
static void __asan_unpoison_memory_region(const volatile void*, size_t) {}
#endif

namespace simt {

struct Graph {
  std::vector<Work> work;
};
struct Stream {
  std::deque<Work> queue;
  uint64_t num_enqueued = 0, num_done = 0;
  Graph* capture = nullptr;
};
struct Event {
  Stream* stream = nullptr;
  uint64_t ticket = 0;  // done once the stream has done this many
};

namespace {

constexpr uint8_t kPoison = 0xff;
constexpr size_t kMaxDynamicSharedBytes = 227 * 1024;

std::map<uint8_t*, std::pair<uint8_t*, size_t>> device_arrays;  // by address: mapping and its bytes
std::set<Stream*> streams;
std::string failure;  // of a launch: sticky, as on a device

// Host code that touches device memory crashes while this is on.
const bool kProtect = std::getenv("SIMT_PROTECT") != nullptr;

int access_depth = 0;
size_t used_bytes = 0;  // of device memory

size_t environment_number(const char* name, size_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr || *text == 0 ? otherwise : std::strtoull(text, nullptr, 10);
}
size_t total_memory() { return environment_number("NDS_EMULATED_MEMORY_BYTES", size_t{2} << 30); }
int num_devices() { return static_cast<int>(environment_number("NDS_EMULATED_DEVICES", 1)); }
__thread int current_device = 0;

void set_device_access(bool allowed) {
  access_depth += allowed ? 1 : -1;
  if (!kProtect || access_depth > 1 || (access_depth == 1 && !allowed)) return;
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (const auto& [address, mapping] : device_arrays)
    mprotect(mapping.first, mapping.second - page, allowed ? PROT_READ | PROT_WRITE : PROT_NONE);
}

bool overlaps_device(const void* address) {
  const auto next = device_arrays.upper_bound(static_cast<uint8_t*>(const_cast<void*>(address)));
  if (next == device_arrays.begin()) return false;
  const auto& mapping = std::prev(next)->second;
  return address < mapping.first + mapping.second;
}

// Runs work in order until `ticket` is done; without `wait`, until something has to wait for another process.
bool drain(Stream& stream, uint64_t ticket, bool wait = true) {
  set_device_access(true);
  while (stream.num_done < ticket) {
    if (failure.empty() && !stream.queue.front()()) {
      if (!wait) break;
      sched_yield();
      continue;
    }
    stream.queue.pop_front();
    stream.num_done++;
  }
  set_device_access(false);
  return stream.num_done >= ticket;
}

cudaError_t status() { return failure.empty() ? cudaSuccess : cudaErrorLaunchFailure; }

cudaError_t refuse(const char* why) {
  if (failure.empty()) failure = why;
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t enqueue(cudaStream_t stream, Work work) {
  if (stream == nullptr) return refuse("Expected a stream but received the default stream");
  if (stream->capture != nullptr) {
    stream->capture->work.push_back(std::move(work));
  } else {
    stream->queue.push_back(std::move(work));
    stream->num_enqueued++;
  }
  return status();
}

cudaError_t enqueue_grid(const LaunchShape& shape, std::function<void()> thread) {
  return enqueue(shape.stream, [shape, thread = std::move(thread)] {
    if (const char* error = run_grid(shape, thread)) failure = error;
    return true;
  });
}

}  // namespace simt

using namespace simt;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = num_devices();
  return status();
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= num_devices()) return cudaErrorInvalidDevice;
  current_device = device;
  return status();
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return status();
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= num_devices()) return cudaErrorInvalidDevice;
  *properties = {"emulated device", 9, 0, total_memory(), 2, kMaxDynamicSharedBytes, 1 << 20};
  return status();
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int size, int device) {
  std::snprintf(text, static_cast<size_t>(size), "emulated:%d", device);
  return status();
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  *total_bytes = total_memory();
  *free_bytes = *total_bytes - used_bytes;
  return status();
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return status();
}

cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

cudaError_t cudaMalloc(void** address, size_t bytes) {
  // Ends close to a page that nobody may touch.
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t padded = (bytes + 255) / 256 * 256, usable = (padded + page - 1) / page * page;
  if (used_bytes + padded > total_memory()) return cudaErrorMemoryAllocation;
  void* memory = mmap(nullptr, usable + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return cudaErrorMemoryAllocation;
  uint8_t* start = static_cast<uint8_t*>(memory);
  std::memset(start, kPoison, usable);
  mprotect(start + usable, page, PROT_NONE);
  *address = start + usable - padded;
  __asan_poison_memory_region(start, usable);
  __asan_unpoison_memory_region(*address, bytes);
  device_arrays[start + usable - padded] = {start, usable + page};
  used_bytes += padded;
  if (kProtect && access_depth == 0) mprotect(start, usable, PROT_NONE);
  return status();
}

cudaError_t cudaFree(void* address) {
  const auto found = device_arrays.find(static_cast<uint8_t*>(address));
  if (address == nullptr) return status();
  if (found == device_arrays.end()) return refuse("cudaFree of memory that cudaMalloc did not give");
  for (Stream* stream : streams) drain(*stream, stream->num_enqueued);  // cudaFree waits for the device
  used_bytes -= static_cast<size_t>(found->second.first + found->second.second - sysconf(_SC_PAGESIZE) -
                                    static_cast<uint8_t*>(address));
  __asan_unpoison_memory_region(found->second.first, found->second.second);
  munmap(found->second.first, found->second.second);
  device_arrays.erase(found);
  return status();
}

cudaError_t cudaMallocHost(void** address, size_t bytes) {
  *address = std::malloc(bytes);
  std::memset(*address, kPoison, bytes);
  return status();
}

cudaError_t cudaFreeHost(void* address) {
  std::free(address);
  return status();
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (overlaps_device(to) != to_device || overlaps_device(from) != from_device)
    return refuse("cudaMemcpyAsync: a pointer does not match the kind of copy");
  if (!to_device) std::memset(to, kPoison, bytes);  // until somebody waits
  return enqueue(stream, [=] { return std::memcpy(to, from, bytes) != nullptr; });
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                              cudaMemcpyKind kind, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  for (size_t row = 0; row < height && error == cudaSuccess; row++) {
    error = cudaMemcpyAsync(static_cast<uint8_t*>(to) + row * to_pitch, static_cast<const uint8_t*>(from) + row * from_pitch,
                            width, kind, stream);
  }
  return error;
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return enqueue(stream, [=] { return std::memset(to, value, bytes) != nullptr; });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new Stream;
  streams.insert(*stream);
  return status();
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  streams.erase(stream);
  delete stream;
  return status();
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream->capture != nullptr) return refuse("cudaStreamSynchronize of a stream that is being captured");
  drain(*stream, stream->num_enqueued);
  return status();
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return drain(*stream, stream->num_enqueued, false) ? status() : cudaErrorNotReady;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new Event;
  return status();
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return status();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  *event = {stream, stream->num_enqueued};
  return status();
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->stream != nullptr) drain(*event->stream, event->ticket);
  return status();
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return event->stream == nullptr || drain(*event->stream, event->ticket, false) ? status() : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 0;
  return status();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (event->stream == nullptr) return status();
  return enqueue(stream, [other = event->stream, ticket = event->ticket] { return drain(*other, ticket, false); });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  stream->capture = new Graph;
  return status();
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = stream->capture;
  stream->capture = nullptr;
  return status();
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new Graph(*graph);
  return status();
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  cudaError_t error = status();
  for (const Work& work : exec->work) error = enqueue(stream, work);
  return error;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return status();
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return status();
}

cudaError_t cudaGetLastError() { return status(); }

cudaError_t cudaDeviceReset() {
  failure.clear();
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaSuccess) return "no error";
  return failure.empty() ? "CUDA error" : failure.c_str();
}
