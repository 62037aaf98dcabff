// A pass through a model: its operators, one after the other, on all threads.
#include "core/steady_clock.h"
#include "cpu/cpu_model.h"
#include "step/trace.h"

namespace nds::cpu {

void CpuModel::run(Pass& pass, StepResult& result) {
  pass_ = &pass;
  result_ = &result;
  if (pass.hidden_rows.size > 0)
    result.hidden.resize(static_cast<size_t>(pass.hidden_rows.size * program_.hidden_size));
  find_begun_runs();
  failed_op_ = kNoOp;
  pool_.run([this](int tid) { run_ops(tid); });
  if (failed_op_ != kNoOp) std::rethrow_exception(failure_);
  if (sampler_ == nullptr || pass.rows.empty()) return;
  sampler_->choose(pass, result);
  if (trace_.is_on) extend_last_event(comm_, result);
}

void CpuModel::run_ops(int tid) {
  if (pass_->block_copies.size > 0) {
    copy_blocks(tid);
    pool_.barrier();
  }
  clear_begun_runs(tid);
  for (const RopeSpec& rope : program_.ropes) {
    const size_t index = &rope - program_.ropes.data();
    const RopeTableArgs args{.positions = pass_->positions.data(),
                             .rows = pass_->num_tokens(),
                             .inv_freq = rope.inv_freq.data(),
                             .half_dim = static_cast<int>(rope.inv_freq.size()),
                             .scale = rope.scale,
                             .cos = rope_cos_[index],
                             .sin = rope_sin_[index]};
    kernels_.rope_table(args, tid, num_threads());
  }
  const int num_ops = static_cast<int>(program_.ops.size());
  double start = tid == 0 && trace_.is_on ? steady_seconds() : 0;
  for (int i = 0; i < num_ops; i++) {
    const OpSpec& op = program_.ops[i];
    // A pass that wants no logits needs only the KV, so it ends here.
    const bool reads_rows = op.kind == OpKind::gather_rows;
    if (reads_rows && pass_->rows.empty()) break;
    if (op.kind == OpKind::hidden_states && pass_->hidden_rows.size == 0) continue;
    if (tid == 0) {
      running_op_ = i;
      trace_.progress.enter(static_cast<int>(op.kind), op.group_layer);
    }
    run_op(op, tid);
    pool_.barrier();
    // Relaxed: the barrier has brought what thread 0 stored before it. <= i: thread 0 may by now have failed in the
    // next operator, where it waits for the others.
    if (failed_op_.load(std::memory_order_relaxed) <= i) return;
    if (tid == 0 && trace_.is_on) start = trace_event(trace_.first_op + i, start, comm_, *result_);
  }
}

}  // namespace nds::cpu
