// The draft's part of a step: it takes in what it has not seen, then proposes token by token, without a word from
// outside.
#pragma once
#include <vector>

#include "core/plan/plan_view.h"
#include "core/plan/step_result.h"
#include "step/device_model.h"
#include "step/pass.h"

namespace nds {

// Proposals of a plan's sequences, none yet.
void clear_proposals(int num_seqs, std::vector<Proposal>& proposals);

class DraftLoop {
 public:
  DraftLoop(DeviceModel& draft, bool is_greedy, DraftRule rule) : draft_(draft), is_greedy_(is_greedy), rule_(rule) {}

  // Lets the draft catch up with the sequences of a plan that has draft_lens, and propose where they want drafts.
  void run(const PlanView& plan, SlotTable& slots, std::vector<Proposal>& proposals, StepResult& result);

 private:
  void catch_up(const PlanView& plan, SlotTable& slots, std::vector<Proposal>& proposals, StepResult& result);
  void extend(const PlanView& plan, SlotTable& slots, std::vector<Proposal>& proposals, StepResult& result);
  void start_pass(const PlanView& plan);
  void run_pass(StepResult& result);

  DeviceModel& draft_;
  const bool is_greedy_;
  const DraftRule rule_;
  Pass pass_;
};

}  // namespace nds
