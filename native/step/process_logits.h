// The only transform from raw logits to the logits that are sampled from, up to the temperature. Temperature and
// filters are in the kernels that sample.
#pragma once
#include "core/plan/slots.h"
#include "core/span.h"

namespace nds {

// out [n] = logits [n] of ids first_id … first_id + n - 1, each edited in fp32 in this order:
//   -inf for all but the allowed tokens, and for the last token of a bad word if the output ends with its others;
//   repetition penalty r on every token seen: logit / r above 0, else logit * r;
//   - frequency penalty * count - presence penalty on tokens of the output;
//   + bias;
//   -inf for the stops while num_output < min_tokens.
// No element depends on another, so any split of the ids yields the same bits. For parameters that look back, the text
// before the row is slot.history, then drafts; drafts count as output.
void process_logits(const float* logits, int first_id, int n, const Slot& slot, Span<int32_t> drafts, int num_output,
                    float* out);

}  // namespace nds
