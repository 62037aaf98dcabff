// A rank on a device: what it is made of, and how a step starts.
#include "cuda/cuda_backend.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "comm/make_communicator.h"
#include "core/error.h"
#include "core/steady_clock.h"
#include "cuda/step.h"

namespace nds {

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options) {
  return std::make_unique<cuda::CudaBackend>(options);
}

namespace cuda {
namespace {

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

CudaBackend::CudaBackend(const BackendOptions& options) : options_(options), comm_(comm::make_communicator(options)) {
  int num_devices = 0;
  check(cudaGetDeviceCount(&num_devices), "counting CUDA devices");
  if (num_devices == 0) throw Error("ERR_CUDA", "Expected a CUDA device but found none");
  // Ranks beyond the devices share them.
  device_ = options.device % num_devices;
  check(cudaSetDevice(device_), "choosing a CUDA device");
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  for (Flight& flight : flights_)
    check(cudaEventCreateWithFlags(&flight.done, cudaEventDisableTiming), "making an event");
  exchange_ = make_host_staged_exchange(*comm_);
  alone_ = comm::make_local();
  alone_exchange_ = make_host_staged_exchange(*alone_);
}

CudaBackend::~CudaBackend() {
  cudaSetDevice(device_);
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  for (const Flight& flight : flights_) {
    if (flight.done != nullptr) cudaEventDestroy(flight.done);
  }
  // Memory goes before the stream, in the order of the members, while the device is set.
  sampler_.reset();
  slots_.reset();
  draft_sampler_.reset();
  draft_.reset();
  model_.reset();
  exchange_.reset();
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

int CudaBackend::max_in_flight() const { return exchange_->is_asynchronous() ? kMaxInFlight : 1; }

LoadReport CudaBackend::load(LoadSpec spec) {
  if (options_.trace) throw Error("ERR_UNSUPPORTED", "Expected no trace on CUDA: operators are not timed there yet");
  model_ = std::make_unique<CudaModel>(std::move(spec.model), *comm_, *exchange_, stream_, options_.deterministic);
  const ProgramSpec& program = model_->program();
  sampler_ = std::make_unique<Sampler>(*model_, *exchange_, stream_);
  slots_ = std::make_unique<CudaSlots>(program, stream_);
  draft_rule_ = spec.draft_rule;
  greedy_draft_ = spec.greedy_draft;
  if (spec.draft) {
    comm::Communicator& comm = spec.shards_draft ? *comm_ : *alone_;
    Exchange& exchange = spec.shards_draft ? *exchange_ : *alone_exchange_;
    draft_ = std::make_unique<CudaModel>(std::move(*spec.draft), comm, exchange, stream_, options_.deterministic);
    draft_sampler_ = std::make_unique<Sampler>(*draft_, exchange, stream_);
  }
  allocate_drafting();
  results_ = DeviceMemory(carve_results(nullptr).bytes, "results");
  result_ = carve_results(results_.as<>());
  check(cudaMemsetAsync(results_.as<>(), 0, static_cast<size_t>(results_.size()), stream_), "clearing results");
  wait_for(stream_, &closed_);
  LoadReport report = model_->report();
  report.scratch_bytes += sampler_->bytes() + results_.size() + draft_memory_.size();
  if (draft_ != nullptr) {
    report += draft_->report();
    report.scratch_bytes += draft_sampler_->bytes();
  }
  // What the ranks waited for each other's loading is no part of the first step.
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

CudaBackend::DevicePlan CudaBackend::upload(const PlanView& plan, Flight& flight) {
  const Span<int32_t> lists{flight.lists.data(), static_cast<int64_t>(flight.lists.size())};
  const Span<int32_t> spans[] = {plan.slots,
                                 plan.token_ids,
                                 plan.cu_query_lens,
                                 plan.block_tables,
                                 plan.cu_blocks,
                                 plan.num_drafts,
                                 plan.logit_rows,
                                 plan.logit_row_kinds,
                                 plan.logit_row_targets,
                                 plan.block_copies,
                                 plan.draft_lens,
                                 plan.draft_block_tables,
                                 plan.draft_cu_blocks,
                                 lists};
  constexpr int kNumSpans = sizeof(spans) / sizeof(spans[0]);
  int64_t bytes = 0;
  for (const Span<int32_t>& span : spans) bytes += round_up(span.size * 4, 64);
  uint8_t* const pinned = flight.upload.reserve(bytes + slots_->upload_bytes(plan));
  if (bytes > plan_memory_.size()) plan_memory_ = DeviceMemory(std::max<int64_t>(bytes * 2, 1 << 16), "a plan");
  const int32_t* places[kNumSpans];
  int64_t offset = 0;
  for (int i = 0; i < kNumSpans; i++) {
    places[i] = spans[i].size == 0 ? nullptr : reinterpret_cast<int32_t*>(plan_memory_.as<>() + offset);
    if (spans[i].size > 0) std::memcpy(pinned + offset, spans[i].data, static_cast<size_t>(spans[i].size) * 4);
    offset += round_up(spans[i].size * 4, 64);
  }
  check(cudaMemcpyAsync(plan_memory_.as<>(), pinned, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_),
        "uploading a plan");
  slots_->upload(plan, pinned + bytes);
  return {places[0], places[1], places[2], places[3],  places[4],  places[5],  places[6],
          places[7], places[8], places[9], places[10], places[11], places[12], places[13]};
}

void CudaBackend::find_reports(const PlanView& plan, Flight& flight) {
  flight.reports.clear();
  flight.num_returned = 0;
  plan.each_logit_row([&](int i, int row, int seq, LogitRowKind kind) {
    if (kind == LogitRowKind::give_back) flight.num_returned++;
    const int num_likeliest = num_likeliest_of(kind, slots_->params(plan.slots[seq]));
    const int first_sampled = plan.cu_query_lens[seq + 1] - 1 - plan.num_drafts_of(seq);
    if (num_likeliest >= 0) flight.reports.push_back({i, seq, num_likeliest, std::max(0, row - first_sampled)});
  });
}

RowWishes CudaBackend::wishes(const PlanView& plan, const Flight& flight) const {
  RowWishes wishes;
  wishes.reports = !flight.reports.empty();
  wishes.returns = flight.num_returned > 0;
  wishes.judges = flight.judged_seqs.count > 0;
  for (int i = 0; i < plan.num_seqs(); i++) {
    const SlotParams& p = slots_->params(plan.slots[i]);
    wishes.filters |= p.filtered();
    // min_tokens edits the first row that a slot samples if it edits any.
    wishes.edits |= p.edits_logits(0);
  }
  return wishes;
}

void CudaBackend::launch(const PlanView& plan) {
  const ProgramSpec& program = model_->program();
  check_shapes(plan, program);
  slots_->admit(plan);
  const ProgramSpec* draft_program = draft_ == nullptr ? nullptr : &draft_->program();
  check_plan(plan, program, draft_program, [this](int32_t slot) { return slots_->bounds(slot); });
  model_->check_tables(plan.step, plan.block_tables);
  if (draft_ != nullptr) draft_->check_tables(plan.step, plan.draft_block_tables);
  check(cudaSetDevice(device_), "choosing a CUDA device");
  Flight& flight = flights_[next_flight_];
  flight.start_seconds = steady_seconds();
  flight.step = plan.step;
  flight.plan_hash = plan.hash;
  flight.num_seqs = plan.num_seqs();
  flight.num_rows = static_cast<int>(plan.logit_rows.size);
  comm_->set_step(plan.step);
  find_reports(plan, flight);
  flight.lists.clear();
  find_draft_passes(plan, flight);
  find_rounds(plan, flight);
  const DevicePlan on_device = upload(plan, flight);

  PassBounds bounds{plan.num_tokens(), flight.num_rows, plan.num_seqs(), 0, 0};
  for (int i = 0; i < plan.num_seqs(); i++) {
    bounds.max_query_len = std::max(bounds.max_query_len, plan.cu_query_lens[i + 1] - plan.cu_query_lens[i]);
    bounds.max_context_len = std::max(bounds.max_context_len, plan.context_lens[i]);
  }
  const PassBounds padded = model_->padded(bounds);
  if (plan.draft_lens.size > 0) run_draft(plan, on_device, flight);
  PassInputs inputs = model_->inputs();
  inputs.first_samples = result_.first_samples;
  if (on_device.block_copies != nullptr)
    model_->copy_blocks(on_device.block_copies, static_cast<int>(plan.num_block_copies()));
  prepare({on_device.slots,
           on_device.token_ids,
           on_device.cu_query_lens,
           on_device.block_tables,
           on_device.cu_blocks,
           on_device.num_drafts,
           on_device.logit_rows,
           on_device.kinds,
           on_device.targets,
           proposals_,
           plan.num_seqs(),
           plan.num_tokens(),
           flight.num_rows,
           static_cast<int>(plan.block_tables.size),
           padded.num_tokens,
           padded.num_logit_rows,
           program.kv.block_size,
           program.vocab_size,
           slots_->device(),
           inputs,
           result_.fault},
          stream_);
  model_->forward(padded);

  const SamplingBatch batch{inputs.rows, padded.num_logit_rows, slots_->device(), inputs.token_ids, false};
  if (flight.num_rows > 0) sampler_->sample(batch, wishes(plan, flight), result_.tokens);
  const bool has_rounds = flight.judged_seqs.count > 0;
  if (has_rounds) judge(plan, on_device, flight, batch, inputs);
  if (!flight.reports.empty()) {
    if (logprob_memory_.size() == 0) {
      const int64_t entries = int64_t{program.max_num_logit_rows} * (kMaxLikeliest + 1);
      logprob_memory_ = DeviceMemory(entries * 8 + int64_t{program.max_num_logit_rows} * 4, "log-probabilities");
      logprob_ids_ = logprob_memory_.as<int32_t>();
      logprobs_ = logprob_memory_.as<float>() + entries;
      logprob_ranks_ = logprob_memory_.as<int32_t>() + 2 * entries;
    }
    sampler_->log_probabilities(batch, result_.tokens, logprob_ids_, logprobs_, logprob_ranks_);
  }
  commit({on_device.slots, on_device.cu_query_lens, on_device.num_drafts, plan.num_seqs(), inputs, result_.tokens,
          has_rounds ? num_accepted_ : nullptr, slots_->device(), program.max_model_len + 1, result_.num_tokens,
          result_.fault},
         stream_);
  download(plan, flight);
  check(cudaEventRecord(flight.done, stream_), "queueing a step");
  flight.slots = slots_->advance(plan);
  in_flight_.push_back(next_flight_);
  next_flight_ = (next_flight_ + 1) % kMaxInFlight;
}

void CudaBackend::download(const PlanView& plan, Flight& flight) {
  const auto fetch = [this](void* to, const void* from, int64_t bytes) {
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_), "fetching results");
  };
  fetch(flight.results.reserve(results_.size()), results_.as<>(), results_.size());
  if (!flight.reports.empty())
    fetch(flight.logprobs.reserve(logprob_memory_.size()), logprob_memory_.as<>(), logprob_memory_.size());
  if (flight.num_returned == 0) return;
  const int64_t row_bytes = int64_t{model_->program().vocab_size} * 4;
  uint8_t* to = flight.returned.reserve(row_bytes * flight.num_returned);
  for (int i = 0; i < flight.num_rows; i++) {
    if (plan.logit_row_kinds[i] != static_cast<int32_t>(LogitRowKind::give_back)) continue;
    fetch(to, sampler_->whole_rows() + i * sampler_->whole_ld(), row_bytes);
    to += row_bytes;
  }
}

}  // namespace cuda
}  // namespace nds
