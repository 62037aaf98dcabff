// Which drafts of a pass are accepted, and which of its rows report log-probabilities.
#pragma once
#include <vector>

#include "core/plan/step_result.h"
#include "step/device_model.h"
#include "step/pass.h"

namespace nds {

// Sets num_accepted of every sequence of the pass that the model ran last, and the token after the accepted drafts.
// Every rank decides by the same numbers.
void accept_drafts(Pass& pass, DeviceModel& model);

// Fills pass.logprob_rows: rows of accepted tokens, of sequences that ask for log-probabilities. Makes room for their
// entries in the result where it is reported.
void place_logprobs(Pass& pass, bool is_reported, StepResult& result);

}  // namespace nds
