// Commits a step's tokens to the slots.
#pragma once
#include "core/plan/plan_view.h"
#include "core/plan/step_result.h"
#include "step/pass.h"

namespace nds {

// Advances each sequence's length. A sequence that samples appends its accepted drafts and the token after them to its
// slot and to the result.
void commit(const PlanView& plan, const Pass& pass, SlotTable& slots, StepResult& result);

}  // namespace nds
