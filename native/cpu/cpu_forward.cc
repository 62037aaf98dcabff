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
  plan_stages();
  has_failed_ = false;
  pool_.run_stages({.count = static_cast<int>(stages_.size()),
                    .part = [this](int stage, int part) { run_part(stages_[stage], part); },
                    .ended = [this](int stage) { end_stage(stage); },
                    .begun = [this] { on_begun_(); }});
  if (has_failed_) std::rethrow_exception(failure_);
  if (sampler_ == nullptr || pass.rows.empty()) return;
  sampler_->choose(pass, result);
  if (trace_.is_on) extend_last_event(comm_, result);
}

void CpuModel::plan_stages() {
  tasks_.clear();
  stages_.clear();
  if (pass_->block_copies.size > 0) add_task({0, &CpuModel::copy_blocks});
  add_task({0, &CpuModel::start_pass});
  for (int i = 0; i < static_cast<int>(program_.ops.size()); i++) {
    const OpKind kind = program_.ops[i].kind;
    // A pass that wants no logits needs only the KV, so it ends here.
    if (kind == OpKind::gather_rows && pass_->rows.empty()) break;
    if (kind == OpKind::hidden_states && pass_->hidden_rows.size == 0) continue;
    if (!fusion_.idle[i]) add_tasks(i);
  }
}

void CpuModel::add_tasks(int index) {
  const OpSpec& op = program_.ops[index];
  const auto add = [&](void (CpuModel::*part)(const OpSpec&, int)) { add_task({index, part}, fusion_.joins[index]); };
  switch (op.kind) {
    case OpKind::embedding:
      add_task({index, &CpuModel::embedding}, index == 0);  // after start_pass
      if (!is_alone()) add_task({index, &CpuModel::exchange_rows});
      return;
    case OpKind::rms_norm:
      return add(&CpuModel::rms_norm);
    case OpKind::linear:
      if (is_quantized((*weights_)[op.weight].linear->format) && value(op.x).rows > kOwnRows) add(&CpuModel::quantize);
      return add_task({index, fusion_.gated[index] ? &CpuModel::linear_silu_mul : &CpuModel::linear});
    case OpKind::all_reduce:
      if (!is_alone()) add_task({index, &CpuModel::all_reduce});
      if (op.bias != kNone) add(&CpuModel::add_bias);
      return;
    case OpKind::head_norm:
      return add(&CpuModel::head_norm);
    case OpKind::rope_and_store:
      return add(&CpuModel::rope_and_store);
    case OpKind::paged_attention:
      return add(&CpuModel::paged_attention);
    case OpKind::silu_mul:
      return add(&CpuModel::silu_mul);
    case OpKind::add:
      return add(&CpuModel::add);
    case OpKind::hidden_states:
      return add(&CpuModel::hidden_states);
    case OpKind::gather_rows:
      return add(&CpuModel::gather_rows);
    case OpKind::sample:
      return add(&CpuModel::sample);
  }
}

// joins: the task begins with what the same part of the task before wrote. With a trace every task is timed alone.
void CpuModel::add_task(Task task, bool joins) {
  tasks_.push_back(task);
  if (!joins || trace_.is_on) stages_.push_back({tasks_.size() - 1, tasks_.size()});
  stages_.back().end = tasks_.size();
}

void CpuModel::run_part(const Stage& stage, int tid) {
  // Relaxed: a failure is of an earlier stage, which comes before this one, since tasks that can fail (`once`) have one
  // of their own.
  if (has_failed_.load(std::memory_order_relaxed)) return;
  for (size_t i = stage.begin; i < stage.end; i++) (this->*tasks_[i].part)(program_.ops[tasks_[i].op], tid);
}

void CpuModel::end_stage(size_t index) {
  if (has_failed_) return;
  const int op = tasks_[stages_[index].begin].op;
  const bool is_last = index + 1 == stages_.size();
  const int next = is_last ? kNone : tasks_[stages_[index + 1].begin].op;
  if (next == op) return;
  if (trace_.is_on) once(0, [&] { op_start_ = trace_event(trace_.first_op + op, op_start_, comm_, *result_); });
  if (!is_last) enter_op(program_.ops[next]);
}

void CpuModel::enter_op(const OpSpec& op) { trace_.progress.enter(static_cast<int>(op.kind), op.group_layer); }

// What the operators expect of this pass; its time counts as the first operator's.
void CpuModel::start_pass(const OpSpec& op, int tid) {
  if (tid == 0) {
    if (trace_.is_on) op_start_ = steady_seconds();
    enter_op(op);
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
}

}  // namespace nds::cpu
