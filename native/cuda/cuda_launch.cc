// The start of a step on a device: its plan is checked and uploaded, and all work up to its result is queued.
#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/round_up.h"
#include "core/steady_clock.h"
#include "cuda/cuda_backend.h"
#include "cuda/step.h"

namespace nds::cuda {
namespace {

PassBounds bounds_of(const PlanView& plan) {
  PassBounds bounds;
  bounds.num_tokens = plan.num_tokens();
  bounds.num_logit_rows = static_cast<int>(plan.logit_rows.size);
  bounds.num_seqs = plan.num_seqs();
  for (int i = 0; i < plan.num_seqs(); i++) {
    bounds.max_query_len = std::max(bounds.max_query_len, plan.cu_query_lens[i + 1] - plan.cu_query_lens[i]);
    bounds.max_context_len = std::max(bounds.max_context_len, plan.context_lens[i]);
  }
  return bounds;
}

}  // namespace

CudaBackend::DevicePlan CudaBackend::upload(const PlanView& plan, Flight& flight) {
  DevicePlan on_device{};
  struct Part {
    Span<int32_t> from;
    const int32_t** to;
  };
  const Part parts[] = {
      {plan.slots, &on_device.slots},
      {plan.token_ids, &on_device.token_ids},
      {plan.cu_query_lens, &on_device.cu_query_lens},
      {plan.block_tables, &on_device.block_tables},
      {plan.cu_blocks, &on_device.cu_blocks},
      {plan.num_drafts, &on_device.num_drafts},
      {plan.logit_rows, &on_device.logit_rows},
      {plan.logit_row_kinds, &on_device.kinds},
      {plan.logit_row_targets, &on_device.targets},
      {plan.block_copies, &on_device.block_copies},
      {plan.draft_lens, &on_device.draft_lens},
      {plan.draft_block_tables, &on_device.draft_block_tables},
      {plan.draft_cu_blocks, &on_device.draft_cu_blocks},
      {{flight.lists.data(), static_cast<int64_t>(flight.lists.size())}, &on_device.lists},
  };
  int64_t bytes = 0;
  for (const Part& part : parts) bytes += round_up(part.from.size * 4, 64);
  uint8_t* const pinned = flight.upload.reserve(bytes + slots_->upload_bytes(plan));
  if (bytes > plan_memory_.size()) plan_memory_ = DeviceMemory(std::max<int64_t>(bytes * 2, 1 << 16), "a plan");
  int64_t offset = 0;
  for (const auto& [from, to] : parts) {
    if (from.size == 0) continue;
    *to = reinterpret_cast<int32_t*>(plan_memory_.as<>() + offset);
    std::memcpy(pinned + offset, from.data, static_cast<size_t>(from.size) * 4);
    offset += round_up(from.size * 4, 64);
  }
  check(cudaMemcpyAsync(plan_memory_.as<>(), pinned, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_),
        "uploading a plan");
  slots_->upload(plan, pinned + bytes);
  return on_device;
}

void CudaBackend::find_reports(const PlanView& plan, Flight& flight) const {
  flight.reports.clear();
  flight.num_returned = 0;
  flight.cu_entries = {static_cast<int64_t>(flight.lists.size()), flight.num_rows + 1};
  int32_t num_entries = 0;  // check_plan bounds the bytes of a result
  plan.each_logit_row([&](int i, int row, int seq, LogitRowKind kind) {
    if (kind == LogitRowKind::give_back) flight.num_returned++;
    const int num_likeliest = num_likeliest_of(kind, slots_->params(plan.slots[seq]));
    const int first_sampled = plan.cu_query_lens[seq + 1] - 1 - plan.num_drafts_of(seq);
    flight.lists.push_back(num_entries);
    if (num_likeliest < 0) return;
    flight.reports.push_back({i, seq, std::max(0, row - first_sampled), num_entries, 1 + num_likeliest});
    num_entries += 1 + num_likeliest;
  });
  flight.lists.push_back(num_entries);
  flight.num_entries = num_entries;
  if (num_entries == 0) flight.lists.resize(static_cast<size_t>(flight.cu_entries.offset));
}

RowWishes CudaBackend::wishes(const PlanView& plan, const Flight& flight) const {
  RowWishes wishes;
  wishes.reports = !flight.reports.empty();
  wishes.returns = flight.num_returned > 0;
  wishes.judges = flight.judged_seqs.count > 0;
  for (int i = 0; i < plan.num_seqs(); i++) {
    const SlotParams& p = slots_->params(plan.slots[i]);
    wishes.filters |= p.filtered();
    // 0 = no output yet: if min_tokens edits any sampled row of a slot, it edits the first.
    wishes.edits |= p.edits_logits(0);
  }
  return wishes;
}

void CudaBackend::launch(const PlanView& plan) {
  const ProgramSpec& program = model_->program();
  if (plan.hidden_rows.size > 0)
    throw Error("ERR_UNSUPPORTED", "Expected no rows of hidden states on CUDA, which only the CPU gives back");
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
  if (times_ != nullptr) times_->begin_step(stream_);
  flight.lists.clear();
  find_reports(plan, flight);
  find_rounds(plan, flight);
  const DevicePlan on_device = upload(plan, flight);

  const PassBounds padded = model_->padded(bounds_of(plan));
  flight.has_draft = plan.draft_lens.size > 0;
  if (flight.has_draft) {
    check(cudaEventRecord(flight.draft_begin, stream_), "timing drafts");
    run_draft(plan, on_device, flight);
    check(cudaEventRecord(flight.draft_end, stream_), "timing drafts");
  }
  const PassInputs inputs = prepare_pass(plan, on_device, padded);
  const SamplingBatch batch{.rows = inputs.rows,
                            .num_rows = padded.num_logit_rows,
                            .slots = slots_->device(),
                            .token_ids = inputs.token_ids,
                            .is_greedy = false};
  const RowWishes wanted = wishes(plan, flight);
  const auto sample_and_commit = [&] {
    if (flight.num_rows > 0) sampler_->sample(batch, wanted, result_.tokens);
    if (wanted.judges) judge(plan, on_device, flight, batch, inputs);
    if (wanted.reports) report(batch, on_device, flight);
    if (flight.num_rows > 0) model_->end_sampling();
    commit({.max_seqs = padded.num_seqs,
            .in = inputs,
            .tokens = result_.tokens,
            .num_accepted = wanted.judges ? num_accepted_ : nullptr,
            .slot_table = slots_->device(),
            .max_history = program.max_model_len + 1,
            .num_tokens = result_.num_tokens,
            .fault = result_.fault},
           is_plain(wanted) ? model_->next_kernel() : model_->between_kernels());
  };
  if (is_plain(wanted)) {
    model_->forward(padded, sample_and_commit);
  } else {
    model_->forward(padded);
    sample_and_commit();
  }
  download(plan, flight);
  check(cudaEventRecord(flight.done, stream_), "queueing a step");
  flight.slots = slots_->advance(plan);
  in_flight_.push_back(next_flight_);
  next_flight_ = (next_flight_ + 1) % kMaxInFlight;
}

PassInputs CudaBackend::prepare_pass(const PlanView& plan, const DevicePlan& on_device, const PassBounds& padded) {
  const ProgramSpec& program = model_->program();
  PassInputs inputs = model_->inputs();
  inputs.first_samples = result_.first_samples;
  if (on_device.block_copies != nullptr)
    model_->copy_blocks(on_device.block_copies, static_cast<int>(plan.num_block_copies()));
  prepare({.slots = on_device.slots,
           .token_ids = on_device.token_ids,
           .cu_query_lens = on_device.cu_query_lens,
           .block_tables = on_device.block_tables,
           .cu_blocks = on_device.cu_blocks,
           .num_drafts = on_device.num_drafts,
           .logit_rows = on_device.logit_rows,
           .logit_row_kinds = on_device.kinds,
           .logit_row_targets = on_device.targets,
           .proposals = proposals_,
           .num_seqs = plan.num_seqs(),
           .num_tokens = plan.num_tokens(),
           .num_logit_rows = static_cast<int>(plan.logit_rows.size),
           .num_blocks = static_cast<int>(plan.block_tables.size),
           .padded_tokens = padded.num_tokens,
           .padded_logit_rows = padded.num_logit_rows,
           .block_size = program.kv.block_size,
           .vocab_size = program.vocab_size,
           .slot_table = slots_->device(),
           .out = inputs,
           .fault = result_.fault},
          stream_);
  return inputs;
}

void CudaBackend::report(const SamplingBatch& batch, const DevicePlan& on_device, const Flight& flight) {
  const int64_t bytes = carve_logprobs(nullptr, flight).bytes;
  if (bytes > logprob_memory_.size()) logprob_memory_ = DeviceMemory(bytes + bytes / 2, "log-probabilities");
  const Logprobs to = carve_logprobs(logprob_memory_.as<>(), flight);
  LogprobArgs args{};
  args.batch = batch;
  args.batch.num_rows = flight.num_rows;  // without padding
  args.tokens = result_.tokens;
  args.cu_entries = on_device.lists + flight.cu_entries.offset;
  args.ids = to.ids;
  args.logprobs = to.logprobs;
  args.ranks = to.ranks;
  sampler_->log_probabilities(args);
}

void CudaBackend::download(const PlanView& plan, Flight& flight) {
  const auto fetch = [this](void* to, const void* from, int64_t bytes) {
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_), "fetching results");
  };
  fetch(flight.results.reserve(results_.size()), results_.as<>(), results_.size());
  const int64_t logprob_bytes = flight.reports.empty() ? 0 : carve_logprobs(nullptr, flight).bytes;
  if (logprob_bytes > 0) fetch(flight.logprobs.reserve(logprob_bytes), logprob_memory_.as<>(), logprob_bytes);
  if (flight.num_returned == 0) return;
  const int64_t row_bytes = int64_t{model_->program().vocab_size} * 4;
  uint8_t* to = flight.returned.reserve(row_bytes * flight.num_returned);
  for (int i = 0; i < flight.num_rows; i++) {
    if (plan.logit_row_kinds[i] != static_cast<int32_t>(LogitRowKind::give_back)) continue;
    fetch(to, sampler_->whole_rows() + i * sampler_->whole_ld(), row_bytes);
    to += row_bytes;
  }
}

}  // namespace nds::cuda
