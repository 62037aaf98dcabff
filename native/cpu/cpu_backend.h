// A rank on the CPU: its threads, the state of every sequence, a model, and perhaps a draft that proposes tokens to it.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "comm/communicator.h"
#include "core/backend.h"
#include "core/plan/plan_view.h"
#include "cpu/cpu_model.h"
#include "cpu/thread_pool.h"
#include "step/pass.h"

namespace nds::cpu {

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const BackendOptions& options);

  LoadReport load(LoadSpec spec) override;
  int max_in_flight() const override { return 1; }
  void launch(int64_t step, const int32_t* directory, int64_t directory_size, const uint8_t* bytes,
              int64_t num_bytes) override {
    result_ = run(view_plan(step, directory, directory_size, bytes, num_bytes));
  }
  bool is_done() override { return result_.has_value(); }
  StepResult collect() override;
  void abort() override;

 private:
  StepResult run(const PlanView& plan);
  // Lets the draft catch up with the sequences of the plan that want it to, and propose; fills proposals_.
  void draft(const PlanView& plan, StepResult& result);
  void catch_up(const PlanView& plan, StepResult& result);
  void extend_drafts(const PlanView& plan, StepResult& result);
  void start_draft_pass(const PlanView& plan);
  void fill_pass(const PlanView& plan);
  void commit(const PlanView& plan, StepResult& result);
  void commit_sequence(Slot& slot, const PassSequence& seq, const LogitRow* first_sample, StepResult& result);

  const BackendOptions options_;
  const Kernels& kernels_;
  ThreadPool pool_;
  std::unique_ptr<comm::Communicator> comm_;
  std::unique_ptr<comm::Communicator> alone_;  // of a draft that every rank has whole
  std::unique_ptr<CpuModel> model_, draft_;
  bool greedy_draft_ = false;
  DraftRule draft_rule_ = DraftRule::coupled;

  std::optional<StepResult> result_;  // of the step that was launched last, until it is collected
  SlotTable slots_;
  Pass pass_, draft_pass_;
  std::vector<Proposal> proposals_;  // [num_seqs] of the running plan, by the draft
};

}  // namespace nds::cpu
