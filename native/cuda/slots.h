// Device state of each sequence between steps, and of each logit row within one. Mirrors core/plan/slots.h, with lists
// as pointers.
#pragma once
#include <cstdint>

#include "core/plan/plan_view.h"

namespace nds::cuda {

// A list of ids in device memory.
struct IdList {
  const int32_t* ids;
  int32_t size;
};

// Given at admission; members as in SlotParams.
struct DeviceParams {
  float temperature, top_p, min_p;
  float presence_penalty, frequency_penalty, repetition_penalty;
  int32_t top_k;
  uint32_t sample_index;
  uint64_t seed;
  int32_t num_prompt_tokens, min_tokens;
  int32_t may_draft, looks_back, keeps_history;
  IdList allowed, stops, bias;  // allowed.size == 0: all
  const float* bias_values;     // [bias.size]
  IdList bad_words;             // words one after the other
  const int32_t* cu_bad_words;  // [num_bad_words + 1] where each begins in bad_words
  int32_t num_bad_words;
};

struct DeviceSlot {
  int32_t length;        // tokens whose KV is cached
  int32_t newest_token;  // sampled and not yet cached; -1 = none
  int32_t draft_length;
  int32_t num_history;  // tokens in history, where params.keeps_history
  int32_t* history;     // [max_model_len + 1]
  // [vocab_size] where params.looks_back: occurrences of each token in the output, | kInPrompt where the prompt has it.
  uint32_t* counts;
  DeviceParams params;
};
constexpr uint32_t kInPrompt = 0x80000000u;

// A row that goes through the LM head; prepare and prepare_draft fill it.
struct LogitRow {
  int32_t row;  // of the pass; -1 = padding: nothing is sampled
  int32_t seq;  // of the plan
  int32_t slot;
  int32_t kind;        // LogitRowKind
  int32_t target;      // of a prompt_logprobs row
  int32_t position;    // absolute position of the token that is drawn
  int32_t num_output;  // output tokens before that position
  // Drafts between the history of the sequence and this row: token_ids [first_draft, first_draft + num_before) of the
  // SamplingBatch.
  int32_t first_draft, num_before;
  int32_t num_drafts;  // of the sequence in this step
};

}  // namespace nds::cuda
