// Loads the slots that a plan admits.
#pragma once
#include "core/plan/plan_view.h"
#include "core/plan/slots.h"
#include "core/program/program.h"

namespace nds {

// Checks and loads the slots that the plan admits. Their arrays must have passed check_shapes.
// @throws Error ERR_PLAN naming the first value out of range.
void admit_slots(const PlanView& plan, const ProgramSpec& program, SlotTable& slots);

}  // namespace nds
