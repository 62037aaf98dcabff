// CUDA's host API: lazy streams, events, and graphs, which are lists of work.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "simt/host_api.h"

namespace simt {
namespace {

// With SIMT_LAUNCHES, the process appends to that file how many launches it ran, how many of them could overlap, how
// many graphs it made, and how often it launched one.
struct LaunchCount {
  std::atomic<uint64_t> all{0}, overlapping{0}, graphs{0}, graph_launches{0};
  ~LaunchCount() {
    const char* const path = std::getenv("SIMT_LAUNCHES");
    std::FILE* const file = path == nullptr ? nullptr : std::fopen(path, "a");
    if (file == nullptr) return;
    for (const std::atomic<uint64_t>* const count : {&all, &overlapping, &graphs, &graph_launches})
      std::fprintf(file, "%llu ", static_cast<unsigned long long>(*count));
    std::fputc('\n', file);
    std::fclose(file);
  }
} launch_count;

}  // namespace

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
  launch_count.graphs++;
  return status();
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  if (!is_stream(stream, "cudaGraphLaunch")) return cudaErrorInvalidResourceHandle;
  launch_count.graph_launches++;
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
