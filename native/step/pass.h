// One forward pass of one model, derived from a plan and the slots before the first operator runs.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "core/plan/plan_view.h"
#include "core/plan/slots.h"
#include "core/span.h"
#include "step/accept.h"

namespace nds {

// A row that goes through the LM head.
struct LogitRow {
  int row;  // index in the pass
  int seq;  // index in the pass
  LogitRowKind kind = LogitRowKind::sample;
  int32_t target = -1;   // prompt_logprobs: the token whose log-probability is reported
  bool edited = false;   // whether sampling reads logits edited by process_logits; set by add_row
  int32_t sampled = -1;  // the token sampled; -1 = none yet
};

// A row that reports log-probabilities.
struct LogprobRow {
  int logit_row;
  int32_t token;
  int num_likeliest;
  int64_t offset;  // of its entries in the result
};

// A distribution that owns its memory, of which only what is written takes any.
class KeptDistribution {
 public:
  // Room for `capacity` ids.
  explicit KeptDistribution(int64_t capacity)
      : ids_(std::make_unique_for_overwrite<int32_t[]>(static_cast<size_t>(capacity))),
        masses_(std::make_unique_for_overwrite<uint64_t[]>(static_cast<size_t>(capacity))) {}
  int32_t* ids() { return ids_.get(); }
  uint64_t* masses() { return masses_.get(); }
  // Sets what was written to ids() and masses().
  void set(int n, uint64_t total) {
    n_ = n;
    total_ = total;
  }
  Distribution view() const { return {ids_.get(), masses_.get(), n_, total_}; }

 private:
  std::unique_ptr<int32_t[]> ids_;
  std::unique_ptr<uint64_t[]> masses_;
  int n_ = 0;
  uint64_t total_ = 0;
};

// The drafts proposed for a sequence.
struct Proposal {
  std::vector<int32_t> tokens;
  // [tokens.size()] the q that each token was drawn from, if the rule judges by it; empty if tokens were not drawn.
  std::vector<KeptDistribution> distributions;
};

// A sequence's share of a pass: rows begin … begin + num_rows - 1, at positions from `position` on.
struct PassSequence {
  const Slot* slot = nullptr;
  int begin = 0, num_rows = 0;
  int position = 0;
  // Row first_sampled + i samples the token after the slot's history and the first i drafts. In the target's pass the
  // drafts are the last rows; in a draft's own pass they are the tokens proposed before.
  int first_sampled = 0;
  std::vector<int32_t> drafts;
  Proposal* proposal = nullptr;  // a draft's pass adds to it; the target's judges by it if the drafts were drawn
  int num_accepted = 0;          // number of accepted drafts
};

struct Pass {
  int64_t step = 0;
  bool is_draft = false;   // its tokens are proposals, none of which are reported
  bool is_greedy = false;  // rows sample their largest logit, whatever the slots' parameters
  DraftRule rule = DraftRule::coupled;
  std::vector<PassSequence> seqs;
  std::vector<int32_t> token_ids;      // [num_tokens]
  std::vector<int32_t> positions;      // [num_tokens]
  std::vector<int64_t> kv_slots;       // [num_tokens] block * block_size + offset in the block
  std::vector<int32_t> cu_query_lens;  // [num_seqs + 1]
  std::vector<int32_t> context_lens;   // [num_seqs]
  std::vector<int32_t> first_blocks;   // [num_seqs] offset of each sequence's table in block_tables
  const int32_t* block_tables = nullptr;
  Span<int32_t> block_copies;
  Span<int32_t> hidden_rows;  // rows whose hidden states are given back
  std::vector<LogitRow> rows;
  std::vector<LogprobRow> logprob_rows;  // filled once drafts are accepted

  int num_seqs() const { return static_cast<int>(seqs.size()); }
  int num_tokens() const { return static_cast<int>(token_ids.size()); }
  int num_logit_rows() const { return static_cast<int>(rows.size()); }

  const SlotParams& params_of(const LogitRow& row) const { return seqs[row.seq].slot->params; }
  bool is_filtered(const LogitRow& row) const { return !is_greedy && params_of(row).filtered(); }
  // Whether a rule judges the row by whole distributions: a drawn draft, or a row of a sequence with drafts.
  bool is_judged(const LogitRow& row) const {
    if (rule == DraftRule::coupled || row.kind != LogitRowKind::sample) return false;
    return is_draft ? !is_greedy : !seqs[row.seq].drafts.empty();
  }
  // Drafts between the history of the row's sequence and the row.
  Span<int32_t> drafts_before(const LogitRow& row) const;
  // Number of output tokens of the row's sequence up to the row.
  int num_output_at(const LogitRow& row) const { return positions[row.row] + 1 - params_of(row).num_prompt_tokens; }

  // Becomes the target's pass of a plan. proposals: [num_seqs], for drafts that the plan leaves to the draft.
  void fill(const PlanView& plan, const SlotTable& slots, std::vector<Proposal>& proposals, int block_size,
            DraftRule draft_rule);
  // Removes all sequences and rows.
  void clear(int64_t step_number, bool draft, const int32_t* tables);
  // Adds a sequence with its next tokens [num_tokens], from `position` on.
  PassSequence& add(const Slot& slot, int position, const int32_t* tokens, int num_tokens, int32_t first_block,
                    int block_size);
  // Adds a logit row; its sequence must have been added.
  void add_row(LogitRow row);
};

}  // namespace nds
