// The one way from logits to what is sampled from, up to the temperature; from there on it is in the kernels that
// sample.
#pragma once
#include "core/plan/slots.h"
#include "core/span.h"

namespace nds {

// out [n] = logits [n] of ids first_id … first_id + n - 1, edited one by one in this order, in fp32:
//   -inf for all but the allowed tokens, and for the last token of a bad word whose others end the output;
//   repetition penalty r on every token seen: logit / r above 0, else logit * r;
//   - frequency penalty * count - presence penalty on tokens of the output;
//   + bias;
//   -inf for the stops while num_output < min_tokens.
// No element depends on another, so any split of the ids gives the same bits. slot.history and then drafts are what
// precedes the row, where the parameters look back; drafts count as output.
void process_logits(const float* logits, int first_id, int n, const Slot& slot, Span<int32_t> drafts, int num_output,
                    float* out);

}  // namespace nds
