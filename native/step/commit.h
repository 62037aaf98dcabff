// What slots remember of a step.
#pragma once
#include "core/plan/plan_view.h"
#include "core/plan/step_result.h"
#include "step/pass.h"

namespace nds {

// Every sequence of the plan's pass keeps its accepted drafts and one token more, in its slot and in the result.
void commit(const PlanView& plan, const Pass& pass, SlotTable& slots, StepResult& result);

}  // namespace nds
