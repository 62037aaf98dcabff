// A pass through a model: its operators, one after the other, on all threads.
#include "core/steady_clock.h"
#include "cpu/cpu_model.h"

namespace nds::cpu {

void CpuModel::run(Pass& pass, StepResult& result) {
  pass_ = &pass;
  result_ = &result;
  find_begun_runs();
  reports_logprobs_ = false;
  for (LogitRow& row : pass.rows) {
    const SlotParams& params = params_of(row);
    if (row.kind == LogitRowKind::sample) row.edited = params.edits_logits(num_output_at(row));
    if (!pass.is_draft && num_logprobs_of(row) >= 0) reports_logprobs_ = true;
  }
  failed_op_ = kNoOp;
  pool_.run([this](int tid) { run_ops(tid); });
  if (failed_op_ != kNoOp) std::rethrow_exception(failure_);
}

void CpuModel::run_ops(int tid) {
  if (pass_->block_copies.size > 0) {
    copy_blocks(tid);
    pool_.barrier();
  }
  clear_begun_runs(tid);
  for (const RopeSpec& rope : program_.ropes) {
    const size_t index = &rope - program_.ropes.data();
    const RopeTableArgs args{pass_->positions.data(),
                             pass_->num_tokens(),
                             rope.inv_freq.data(),
                             static_cast<int>(rope.inv_freq.size()),
                             rope.scale,
                             rope_cos_[index],
                             rope_sin_[index]};
    kernels_.rope_table(args, tid, num_threads());
  }
  const int num_ops = static_cast<int>(program_.ops.size());
  double start = tid == 0 && place_.trace ? steady_seconds() : 0;
  for (int i = 0; i < num_ops; i++) {
    const OpSpec& op = program_.ops[i];
    // Nothing after the KV is stored matters to a pass that wants no logits.
    const bool reads_rows = op.kind == OpKind::gather_rows;
    if (reads_rows && pass_->rows.empty()) break;
    if (tid == 0) running_op_ = i;
    run_op(op, tid);
    pool_.barrier();
    // In this operator, that is: thread 0 may have failed in the next one by now, where it waits for the others.
    if (failed_op_.load(std::memory_order_relaxed) <= i) return;
    if (tid == 0 && place_.trace) start = trace_event(place_.first_op + i, start, *result_);
  }
}

void CpuModel::count_exchange(StepResult& result) {
  const comm::Communicator::Stats stats = comm_.take_stats();
  result.wait_seconds += stats.wait_seconds;
  result.exchanged_bytes += static_cast<double>(stats.exchanged_bytes);
  result.all_reduce_bytes += static_cast<double>(stats.all_reduce_bytes);
}

double CpuModel::trace_event(int op, double start_seconds, StepResult& result) {
  const double waited = result.wait_seconds;
  count_exchange(result);
  const double end_seconds = steady_seconds();
  result.trace.push_back({static_cast<double>(op), start_seconds, end_seconds, result.wait_seconds - waited});
  return end_seconds;
}

}  // namespace nds::cpu
