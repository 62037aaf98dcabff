// A rank on a device: construction, loading and teardown.
#include "cuda/cuda_backend.h"

#include <string>

#include "comm/make_communicator.h"
#include "core/error.h"
#include "core/round_up.h"

namespace nds {

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options) {
  return std::make_unique<cuda::CudaBackend>(options);
}

namespace cuda {
CudaBackend::CudaBackend(const BackendOptions& options) : options_(options), comm_(comm::make_communicator(options)) {
  int num_devices = 0;
  check(cudaGetDeviceCount(&num_devices), "counting CUDA devices");
  if (num_devices == 0) throw Error("ERR_CUDA", "Expected a CUDA device but found none");
  // More ranks than devices share them in turn.
  device_ = options.device % num_devices;
  check(cudaSetDevice(device_), "choosing a CUDA device");
  stop_ = std::make_unique<HostFlag>();
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  for (Flight& flight : flights_)
    check(cudaEventCreateWithFlags(&flight.done, cudaEventDisableTiming), "making an event");
  alone_ = comm::make_local();
  alone_exchange_ = make_host_staged_exchange(*alone_);
}

CudaBackend::~CudaBackend() {
  cudaSetDevice(device_);
  // A collective that another rank never joined would hold the stream for ever.
  stop_->raise();
  if (exchange_ != nullptr) exchange_->abort();
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  for (const Flight& flight : flights_) {
    for (const cudaEvent_t event : {flight.done, flight.draft_begin, flight.draft_end}) {
      if (event != nullptr) cudaEventDestroy(event);
    }
  }
  // What uses the stream goes before it, while the device is set.
  sampler_.reset();
  slots_.reset();
  draft_graphs_.reset();
  draft_sampler_.reset();
  draft_.reset();
  model_.reset();
  times_.reset();
  exchange_.reset();
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

int CudaBackend::max_in_flight() const {
  // A traced step is timed from an idle device on.
  return exchange_ != nullptr && exchange_->is_asynchronous() && times_ == nullptr ? kMaxInFlight : 1;
}

LoadReport CudaBackend::load(LoadSpec spec) {
  exchange_ = make_exchange(*comm_, options_, device_, closed_, stop_->address());
  const auto make = [&](ProgramSpec program, comm::Communicator& comm, Exchange& exchange, const Progress& progress) {
    return std::make_unique<CudaModel>(std::move(program), comm, exchange, stream_, options_.deterministic,
                                       options_.on_loaded, progress);
  };
  model_ = make(std::move(spec.model), *comm_, *exchange_, options_.progress);
  const ProgramSpec& program = model_->program();
  sampler_ = std::make_unique<Sampler>(*model_, *exchange_, stream_);
  slots_ = std::make_unique<CudaSlots>(program, stream_);
  draft_rule_ = spec.draft_rule;
  greedy_draft_ = spec.greedy_draft;
  if (spec.draft) {
    comm::Communicator& comm = spec.shards_draft ? *comm_ : *alone_;
    Exchange& exchange = spec.shards_draft ? *exchange_ : *alone_exchange_;
    draft_ = make(std::move(*spec.draft), comm, exchange, options_.progress.of_draft());
    draft_sampler_ = std::make_unique<Sampler>(*draft_, exchange, stream_);
    draft_graphs_ = std::make_unique<Graphs>(exchange, stream_);
    for (Flight& flight : flights_) {
      check(cudaEventCreate(&flight.draft_begin), "making an event");
      check(cudaEventCreate(&flight.draft_end), "making an event");
    }
  }
  if (options_.trace) {
    times_ = std::make_unique<OpTimes>();
    model_->trace_to(*times_, 0);
    // A draft's operators are numbered after those of its target.
    if (draft_ != nullptr) draft_->trace_to(*times_, static_cast<int>(program.ops.size()));
  }
  allocate_drafting();
  results_ = DeviceMemory(carve_results(nullptr).bytes, "results");
  result_ = carve_results(results_.as<>());
  if (exchange_->peers() != nullptr) exchange_->peers()->report_to(result_.fault);
  check(cudaMemsetAsync(results_.as<>(), 0, static_cast<size_t>(results_.size()), stream_), "clearing results");
  wait_for(stream_, &closed_);
  LoadReport report = model_->report();
  report.scratch_bytes += sampler_->bytes() + results_.size() + draft_memory_.size();
  if (draft_ != nullptr) {
    report += draft_->report();
    report.scratch_bytes += draft_sampler_->bytes();
  }
  // The wait for other ranks to load does not count in the first step.
  comm_->take_stats();
  return report;
}

CudaBackend::Results CudaBackend::carve_results(uint8_t* base) const {
  const ProgramSpec& program = model_->program();
  const int64_t seqs = round_up(int64_t{program.max_num_seqs} * 4, 64);
  Results r{};
  r.fault = reinterpret_cast<unsigned long long*>(base);
  r.num_tokens = reinterpret_cast<int32_t*>(base + 64);
  r.first_samples = reinterpret_cast<int32_t*>(base + 64 + seqs);
  r.tokens = reinterpret_cast<int32_t*>(base + 64 + 2 * seqs);
  r.bytes = 64 + 2 * seqs + round_up(int64_t{program.max_num_logit_rows} * 4, 64);
  return r;
}

}  // namespace cuda
}  // namespace nds
