// Loading the slots that a plan admits.
#pragma once
#include "core/plan/plan_view.h"
#include "core/plan/slots.h"
#include "core/program/program.h"

namespace nds {

// Checks what the plan says of its admitted slots, whose arrays have the right sizes, and loads them.
// @throws Error ERR_PLAN naming the first thing that is out of range.
void admit_slots(const PlanView& plan, const ProgramSpec& program, SlotTable& slots);

}  // namespace nds
