// Decides which drafts of a pass are accepted and which rows report log-probabilities.
#pragma once
#include <vector>

#include "core/plan/step_result.h"
#include "step/device_model.h"
#include "step/pass.h"

namespace nds {

// Sets num_accepted of every sequence and the token after its accepted drafts. `pass` is the one that the model ran
// last. Every rank decides by the same numbers.
void accept_drafts(Pass& pass, DeviceModel& model);

// Fills pass.logprob_rows with the rows of accepted tokens whose sequences ask for log-probabilities. If is_reported,
// makes room for their entries in the result.
void place_logprobs(Pass& pass, bool is_reported, StepResult& result);

}  // namespace nds
