// One step on the CPU: what is derived from the plan before, the operators on all threads, what slots remember after.
#include <chrono>
#include <exception>
#include <string>

#include "comm/agreement.h"
#include "core/error.h"
#include "core/step_hash.h"
#include "cpu/cpu_backend.h"
#include "cpu/process_logits.h"

namespace nds::cpu {
namespace {

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

StepResult CpuBackend::run(const PlanView& plan) {
  const double start = steady_seconds();
  admit_and_check(plan, program_, slots_);
  StepResult result;
  prepare(plan, result);
  comm_->set_step(plan.step);
  failed_op_ = kNoOp;
  pool_.run([this](int tid) { run_ops(tid); });
  if (failed_op_ != kNoOp) std::rethrow_exception(failure_);
  commit(plan, result);
  result.plan_hash = plan.hash;
  result.output_hash = hash_output(result);
  const double agreement_start = options_.trace ? steady_seconds() : 0;
  comm::check_agreement(*comm_, plan.step, result.plan_hash, result.output_hash);
  if (options_.trace && options_.world_size > 1) trace_event(kAgreement, agreement_start);
  count_exchange(result);
  result.start_seconds = start;
  result.end_seconds = steady_seconds();
  result.execute_seconds = result.end_seconds - start;
  return result;
}

void CpuBackend::prepare(const PlanView& plan, StepResult& result) {
  const int num_tokens = plan.num_tokens();
  step_.plan = &plan;
  step_.result = &result;
  step_.token_ids.assign(plan.token_ids.data, plan.token_ids.data + num_tokens);
  step_.positions.resize(num_tokens);
  step_.kv_slots.resize(num_tokens);
  for (int i = 0; i < plan.num_seqs(); i++) {
    const Slot& slot = slots_[plan.slots[i]];
    const int32_t* blocks = plan.block_tables.data + plan.cu_blocks[i];
    const int begin = plan.cu_query_lens[i];
    if (step_.token_ids[begin] == -1) step_.token_ids[begin] = slot.newest_token;
    for (int row = begin; row < plan.cu_query_lens[i + 1]; row++) {
      const int position = slot.length + row - begin;
      const int block_size = program_.kv.block_size;
      step_.positions[row] = position;
      step_.kv_slots[row] = int64_t{blocks[position / block_size]} * block_size + position % block_size;
    }
  }
  find_begun_runs(plan);
  prepare_logit_rows(plan, result);
}

void CpuBackend::prepare_logit_rows(const PlanView& plan, StepResult& result) {
  const int num_rows = static_cast<int>(plan.logit_rows.size);
  step_.row_seq.clear();
  step_.edited.assign(num_rows, 0);
  step_.sampled.assign(num_rows, -1);
  step_.logprob_rows.clear();
  int seq = 0;
  int64_t num_entries = 0;
  for (int row = 0; row < num_rows; row++) {
    while (plan.logit_rows[row] >= plan.cu_query_lens[seq + 1]) seq++;
    step_.row_seq.push_back(seq);
    const SlotParams& params = slot_of(row).params;
    const bool is_sampled = kind_of(row) == LogitRowKind::sample;
    if (is_sampled) step_.edited[row] = edits_logits(params, num_output_at(row));
    if (kind_of(row) == LogitRowKind::give_back) continue;
    const int num_likeliest = is_sampled ? params.num_logprobs : params.num_prompt_logprobs;
    if (num_likeliest < 0) continue;
    step_.logprob_rows.push_back({row, is_sampled ? -1 : plan.logit_row_targets[row], num_likeliest, num_entries});
    num_entries += 1 + num_likeliest;
  }
  // Only rank 0's result is read.
  if (options_.rank != 0) return;
  result.logprob_ids.resize(num_entries);
  result.logprobs.resize(num_entries);
  result.logprob_ranks.resize(step_.logprob_rows.size());
}

void CpuBackend::commit(const PlanView& plan, StepResult& result) {
  result.num_tokens.assign(plan.num_seqs(), 0);
  for (int i = 0; i < plan.num_seqs(); i++) {
    Slot& slot = slots_[plan.slots[i]];
    slot.length += plan.cu_query_lens[i + 1] - plan.cu_query_lens[i];
    slot.newest_token = -1;
  }
  for (size_t i = 0; i < step_.sampled.size(); i++) {
    if (kind_of(static_cast<int>(i)) != LogitRowKind::sample) continue;
    const int seq = step_.row_seq[i];
    slots_[plan.slots[seq]].append(step_.sampled[i]);
    result.num_tokens[seq] = 1;
    result.token_ids.push_back(step_.sampled[i]);
  }
}

void CpuBackend::run_ops(int tid) {
  if (step_.plan->num_block_copies() > 0) {
    copy_blocks(tid);
    pool_.barrier();
  }
  clear_begun_runs(tid);
  for (const RopeSpec& rope : program_.ropes) {
    const size_t index = &rope - program_.ropes.data();
    const RopeTableArgs args{step_.positions.data(),
                             step_.plan->num_tokens(),
                             rope.inv_freq.data(),
                             static_cast<int>(rope.inv_freq.size()),
                             rope.scale,
                             rope_cos_[index],
                             rope_sin_[index]};
    kernels_.rope_table(args, tid, num_threads());
  }
  const int num_ops = static_cast<int>(program_.ops.size());
  double start = tid == 0 && options_.trace ? steady_seconds() : 0;
  for (int i = 0; i < num_ops; i++) {
    const OpSpec& op = program_.ops[i];
    // Nothing after the KV is stored matters to a step that wants no logits.
    const bool reads_rows = op.kind == OpKind::gather_rows;
    if (reads_rows && step_.plan->logit_rows.size == 0) break;
    if (tid == 0) running_op_ = i;
    run_op(op, tid);
    pool_.barrier();
    // In this operator, that is: thread 0 may have failed in the next one by now, where it waits for the others.
    if (failed_op_.load(std::memory_order_relaxed) <= i) return;
    if (tid == 0 && options_.trace) start = trace_event(i, start);
  }
}

void CpuBackend::count_exchange(StepResult& result) {
  const comm::Communicator::Stats stats = comm_->take_stats();
  result.wait_seconds += stats.wait_seconds;
  result.exchanged_bytes += static_cast<double>(stats.exchanged_bytes);
  result.all_reduce_bytes += static_cast<double>(stats.all_reduce_bytes);
}

double CpuBackend::trace_event(int op, double start_seconds) {
  StepResult& result = *step_.result;
  const double waited = result.wait_seconds;
  count_exchange(result);
  const double end_seconds = steady_seconds();
  result.trace.push_back({static_cast<double>(op), start_seconds, end_seconds, result.wait_seconds - waited});
  return end_seconds;
}

}  // namespace nds::cpu
