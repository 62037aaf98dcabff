// A step that the host drives: propose drafts, run one pass of the model, accept drafts, commit to the slots.
#include "step/host_backend.h"

#include <utility>

#include "comm/agreement.h"
#include "comm/make_communicator.h"
#include "core/error.h"
#include "core/plan/step_hash.h"
#include "core/steady_clock.h"
#include "step/acceptance.h"
#include "step/commit.h"
#include "step/trace.h"

namespace nds {

HostBackend::HostBackend(const BackendOptions& options, MakeModel make_model)
    : options_(options),
      make_model_(std::move(make_model)),
      comm_(comm::make_communicator(options)),
      alone_(comm::make_local()) {}

LoadReport HostBackend::load(LoadSpec spec) {
  slots_.assign(spec.model.max_num_seqs, Slot{});
  const int num_ops = static_cast<int>(spec.model.ops.size());
  model_ = make_model_(std::move(spec.model), *comm_, {options_.trace, 0, options_.progress});
  LoadReport report = model_->report();
  draft_rule_ = spec.draft_rule;
  if (spec.draft) {
    draft_ = make_model_(std::move(*spec.draft), spec.shards_draft ? *comm_ : *alone_,
                         {options_.trace, num_ops, options_.progress.of_draft()});
    draft_loop_.emplace(*draft_, spec.greedy_draft, spec.draft_rule);
    report += draft_->report();
  }
  // Time spent waiting for other ranks to load is no part of the first step.
  comm_->take_stats();
  return report;
}

void HostBackend::abort() { comm_->abort(); }

StepResult HostBackend::collect() {
  if (!result_) throw Error("ERR_INTERNAL", "Expected a step in flight to collect");
  StepResult result = std::move(*result_);
  result_.reset();
  return result;
}

StepResult HostBackend::run(const PlanView& plan) {
  const double start = steady_seconds();
  admit_and_check(plan, model_->program(), draft_ == nullptr ? nullptr : &draft_->program(), slots_);
  comm_->set_step(plan.step);
  StepResult result;
  clear_proposals(plan.num_seqs(), proposals_);
  if (plan.draft_lens.size > 0) draft_loop_->run(plan, slots_, proposals_, result);
  const double draft_end = steady_seconds();
  run_model(plan, result);
  commit(plan, pass_, slots_, result);
  result.plan_hash = plan.hash;
  result.output_hash = hash_output(result);
  const double agreement_start = options_.trace ? steady_seconds() : 0;
  options_.progress.enter(kAgreementOp, -1);
  comm::check_agreement(*comm_, plan.step, result.plan_hash, result.output_hash);
  if (options_.trace && options_.world_size > 1) trace_event(kAgreement, agreement_start, *comm_, result);
  comm::count_exchange(*comm_, result);
  result.start_seconds = start;
  result.end_seconds = steady_seconds();
  result.execute_seconds = result.end_seconds - start;
  result.draft_seconds = draft_end - start;
  return result;
}

void HostBackend::run_model(const PlanView& plan, StepResult& result) {
  pass_.fill(plan, slots_, proposals_, model_->program().kv.block_size, draft_rule_);
  model_->run(pass_, result);
  accept_drafts(pass_, *model_);
  place_logprobs(pass_, options_.rank == 0, result);
  if (!pass_.logprob_rows.empty()) model_->log_probabilities(pass_, result);
  if (options_.trace) extend_last_event(*comm_, result);
}

}  // namespace nds
