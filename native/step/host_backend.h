// A rank whose steps the host drives: the state of every sequence, a model, and perhaps a draft that proposes tokens to
// it. A step runs from its launch to its end at once.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "comm/communicator.h"
#include "core/backend.h"
#include "core/plan/plan_view.h"
#include "step/device_model.h"
#include "step/draft_loop.h"
#include "step/pass.h"

namespace nds {

class HostBackend final : public Backend {
 public:
  HostBackend(const BackendOptions& options, MakeModel make_model);

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
  void run_model(const PlanView& plan, StepResult& result);

  const BackendOptions options_;
  const MakeModel make_model_;
  std::unique_ptr<comm::Communicator> comm_;
  std::unique_ptr<comm::Communicator> alone_;  // for a draft that every rank holds whole
  std::unique_ptr<DeviceModel> model_, draft_;
  std::optional<DraftLoop> draft_loop_;  // set if there is a draft
  DraftRule draft_rule_ = DraftRule::coupled;

  std::optional<StepResult> result_;  // of the last launched step, until collected
  SlotTable slots_;
  Pass pass_;
  std::vector<Proposal> proposals_;  // [at least num_seqs] the draft's, for the running plan
};

}  // namespace nds
