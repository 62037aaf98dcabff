// The draft's part of a step: it catches up on tokens that it has not seen, then proposes token by token, with no round
// trip to JavaScript.
#pragma once
#include <vector>

#include "core/plan/plan_view.h"
#include "core/plan/step_result.h"
#include "step/device_model.h"
#include "step/pass.h"

namespace nds {

// Empties the proposals and makes room for num_seqs of them.
void clear_proposals(int num_seqs, std::vector<Proposal>& proposals);

class DraftLoop {
 public:
  DraftLoop(DeviceModel& draft, bool is_greedy, DraftRule rule) : draft_(draft), is_greedy_(is_greedy), rule_(rule) {}

  // Catches up with the sequences of a plan, which must have draft_lens, and proposes for those that want drafts.
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
