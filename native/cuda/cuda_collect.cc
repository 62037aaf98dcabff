// The end of a step on a device: its result is awaited, checked and read.
#include <sched.h>

#include <algorithm>
#include <string>

#include "comm/agreement.h"
#include "core/error.h"
#include "core/plan/step_hash.h"
#include "core/steady_clock.h"
#include "cuda/cuda_backend.h"

namespace nds::cuda {

void CudaBackend::abort() {
  closed_ = true;
  stop_->raise();
  comm_->abort();
}

bool CudaBackend::is_done() {
  if (in_flight_.empty()) return false;
  const cudaError_t status = cudaEventQuery(flights_[in_flight_.front()].done);
  // A failed step counts as done: collect() throws its error.
  return status != cudaErrorNotReady;
}

void CudaBackend::wait(cudaEvent_t event) {
  const double deadline = steady_seconds() + static_cast<double>(options_.step_timeout_ms) / 1000;
  options_.progress.wait(Wait::device, -1);
  for (;;) {
    const cudaError_t status = cudaEventQuery(event);
    if (status == cudaSuccess) return options_.progress.end_wait();
    if (status != cudaErrorNotReady) check(status, "work on the device");
    if (closed_) throw Error("ERR_CLOSED", "Expected an open backend but it was closed");
    exchange_->check_health();
    if (steady_seconds() > deadline) give_up(flights_[in_flight_.front()], "Expected the device to finish");
    sched_yield();
  }
}

// NCCL cannot tell for whom it waits, and a rank that a kernel misses may itself wait for another. Ranks that are as
// far as this one meet here, and miss the others by name.
void CudaBackend::give_up(const Flight& flight, const std::string& what) {
  stop_->raise();
  exchange_->abort();
  comm_->set_step(flight.step);
  comm::check_agreement(*comm_, flight.step, 0, 0);
  throw Error("ERR_STEP_TIMEOUT", "Step " + std::to_string(flight.step) + ": " + what + " within " +
                                      std::to_string(options_.step_timeout_ms) + " ms");
}

void CudaBackend::throw_fault(const Flight& flight, unsigned long long fault) {
  const std::string seq = std::to_string(fault >> 32), step = std::to_string(flight.step);
  switch (static_cast<StepFault>(fault & 0xffffffffu)) {
    case StepFault::no_number:
      throw Error("ERR_CHECKPOINT", "Expected logits that are numbers for sequence " + seq + " of plan " + step +
                                        " but received none: its bans leave none, or the weights hold infinities or "
                                        "overflow");
    case StepFault::lost_rank:
      if (closed_) throw Error("ERR_CLOSED", "Expected an open backend but it was closed");
      give_up(flight, "Expected the partial sums of rank " + seq);
    case StepFault::no_block:
      throw Error("ERR_PLAN", "Plan " + step + ": expected blocks for all tokens of sequence " + seq);
    default:
      throw Error("ERR_PLAN", "Plan " + step + ": expected token ids inside the vocabulary for sequence " + seq);
  }
}

CudaBackend::Logprobs CudaBackend::carve_logprobs(uint8_t* base, const Flight& flight) {
  const auto at = [base](int64_t index) { return base == nullptr ? nullptr : base + index * 4; };
  return {reinterpret_cast<int32_t*>(at(0)), reinterpret_cast<float*>(at(flight.num_entries)),
          reinterpret_cast<int32_t*>(at(2 * flight.num_entries)), (2 * flight.num_entries + flight.num_rows) * 4};
}

void CudaBackend::read_logprobs(const Flight& flight, const int32_t* num_tokens, StepResult& result) const {
  const Logprobs from = carve_logprobs(flight.logprobs.data(), flight);
  for (const Flight::Report& report : flight.reports) {
    // Rows after a rejected draft report nothing.
    if (report.num_before >= num_tokens[report.seq] && report.num_before > 0) continue;
    const int32_t* const ids = from.ids + report.first_entry;
    const float* const logprobs = from.logprobs + report.first_entry;
    result.logprob_ids.insert(result.logprob_ids.end(), ids, ids + report.num_entries);
    result.logprobs.insert(result.logprobs.end(), logprobs, logprobs + report.num_entries);
    result.logprob_ranks.push_back(from.ranks[report.row]);
  }
}

// On the device: the host queues a step while the one before it runs.
double CudaBackend::draft_seconds(const Flight& flight) const {
  if (!flight.has_draft) return 0;
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, flight.draft_begin, flight.draft_end), "reading the time of drafts");
  return static_cast<double>(milliseconds) / 1000;
}

// Compares the result with those of other ranks, and ends the trace with that.
void CudaBackend::agree(const Flight& flight, StepResult& result) {
  if (times_ != nullptr) times_->read(result);
  comm::count_exchange(*comm_, result);
  const double waited = result.wait_seconds, start = steady_seconds();
  comm::check_agreement(*comm_, flight.step, result.plan_hash, result.output_hash);
  comm::count_exchange(*comm_, result);
  if (times_ == nullptr || comm_->world_size() == 1) return;
  result.trace.push_back({kAgreement, start, steady_seconds(), result.wait_seconds - waited});
}

StepResult CudaBackend::collect() {
  if (in_flight_.empty()) throw Error("ERR_INTERNAL", "Expected a step in flight to collect");
  Flight& flight = flights_[in_flight_.front()];
  wait(flight.done);
  const Results at = carve_results(flight.results.data());
  if (*at.fault != 0) throw_fault(flight, *at.fault);
  StepResult result;
  for (int i = 0; i < flight.num_seqs; i++) {
    const int32_t count = at.num_tokens[i], first = at.first_samples[i];
    result.num_tokens.push_back(count);
    if (count > 0) result.token_ids.insert(result.token_ids.end(), at.tokens + first, at.tokens + first + count);
    slots_->settle(flight.slots[i], flight.slots[i].num_drafts > 0 ? count - 1 : 0);
  }
  if (flight.num_returned > 0) {
    const auto* rows = reinterpret_cast<const float*>(flight.returned.data());
    result.logits.assign(rows, rows + int64_t{flight.num_returned} * model_->program().vocab_size);
  }
  if (!flight.reports.empty() && options_.rank == 0) read_logprobs(flight, at.num_tokens, result);
  result.plan_hash = flight.plan_hash;
  result.output_hash = hash_output(result);
  comm_->set_step(flight.step);  // a later one may have been launched
  options_.progress.enter(kAgreementOp, -1);
  agree(flight, result);
  const Traffic traffic = exchange_->traffic() - last_traffic_;
  result.exchanged_bytes += static_cast<double>(traffic.bytes);
  result.all_reduce_bytes += static_cast<double>(traffic.all_reduce_bytes);
  last_traffic_ = exchange_->traffic();
  // A step that was queued behind another begins when that one ends.
  result.start_seconds = flight.start_seconds > last_end_seconds_ ? flight.start_seconds : last_end_seconds_;
  result.end_seconds = steady_seconds();
  result.execute_seconds = result.end_seconds - result.start_seconds;
  result.draft_seconds = std::min(draft_seconds(flight), result.execute_seconds);
  last_end_seconds_ = result.end_seconds;
  in_flight_.pop_front();
  return result;
}

}  // namespace nds::cuda
