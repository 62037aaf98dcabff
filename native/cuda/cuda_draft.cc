// The draft model's part of a step: it catches up, then proposes draft after draft without a word from the host.
#include <algorithm>

#include "core/round_up.h"
#include "cuda/cuda_backend.h"

namespace nds::cuda {
namespace {

// Sequences of the plan that want more than `pass` drafts of the draft model.
int num_drafting(const PlanView& plan, int pass) {
  int count = 0;
  for (int i = 0; i < plan.num_seqs(); i++) {
    if (plan.wants_draft(i) && plan.num_drafts_of(i) > pass) count++;
  }
  return count;
}

}  // namespace

void CudaBackend::allocate_drafting() {
  const int64_t seqs = model_->program().max_num_seqs, rows = model_->program().max_num_logit_rows;
  const int64_t seq_ints = seqs * static_cast<int64_t>(sizeof(DraftSeq)) / 4;
  // A multiple of 64, so that rounds_, which holds pointers, is aligned.
  const int64_t ints = round_up(seqs * kMaxPlanDrafts + 4 * rows + 4 * seqs + seq_ints + 1, 64);
  draft_memory_ = DeviceMemory(ints * 4 + seqs * static_cast<int64_t>(sizeof(Round)), "drafts");
  int32_t* next = draft_memory_.as<int32_t>();
  const auto take = [&next](int64_t count) {
    int32_t* const part = next;
    next += count;
    return part;
  };
  proposals_ = take(seqs * kMaxPlanDrafts);
  draft_tokens_ = take(rows);
  iota_ = take(rows);
  num_accepted_ = take(seqs);
  round_accepted_ = take(seqs);
  round_tokens_ = take(seqs);
  draft_state_ = {.num_drafting = take(1),
                  .drafting = reinterpret_cast<DraftSeq*>(take(seq_ints)),
                  .slots = take(seqs),
                  .draw_rounds = take(rows),
                  .places = take(rows)};
  rounds_ = reinterpret_cast<Round*>(draft_memory_.as<int32_t>() + ints);
  std::vector<int32_t> numbers;
  for (int32_t i = 0; i < rows; i++) numbers.push_back(i);
  check(cudaMemcpyAsync(iota_, numbers.data(), numbers.size() * 4, cudaMemcpyHostToDevice, stream_),
        "uploading numbers");
  wait_for(stream_, &closed_);
}

// Distributions are at q_masses(), their totals at q_totals(): addresses that graphs hold.
void CudaBackend::reserve_distributions(int num_places) {
  if (!draws_drafts() || num_places <= q_places_) return;
  draft_graphs_->clear();
  q_places_ = num_places + num_places / 4;
  q_memory_ =
      DeviceMemory(int64_t{q_places_} * (draft_->program().sample_vocab_size + 1) * 8, "distributions of drafts");
}

uint64_t* CudaBackend::q_totals() const {
  return q_masses() + (draft_ == nullptr ? 0 : int64_t{q_places_} * draft_->program().sample_vocab_size);
}

DraftPass CudaBackend::draft_pass(const PassBounds& bounds) const {
  return {.padded_tokens = bounds.num_tokens,
          .padded_logit_rows = bounds.num_logit_rows,
          .block_size = draft_->program().kv.block_size,
          .vocab_size = draft_->program().vocab_size,
          .slot_table = slots_->device(),
          .proposals = proposals_,
          .inputs = draft_->inputs(),
          .state = draft_state_,
          .fault = result_.fault};
}

// Bounds of a pass that takes in one draft of each of `num_seqs` sequences, and samples after it.
PassBounds CudaBackend::proposal_bounds(int num_seqs) const {
  return draft_->padded({.num_tokens = num_seqs,
                         .num_logit_rows = num_seqs,
                         .num_seqs = num_seqs,
                         .max_query_len = 1,
                         .max_context_len = draft_->program().max_model_len});
}

void CudaBackend::run_draft(const PlanView& plan, const DevicePlan& on_device, const Flight& flight) {
  int num_places = 0, num_passes = 0;
  PassBounds bounds;
  for (int i = 0; i < plan.num_seqs(); i++) {
    const int count = std::min(plan.draft_lens[i], slots_->bounds(plan.slots[i]).most_behind);
    bounds.num_tokens += count;
    bounds.max_query_len = std::max(bounds.max_query_len, count);
    if (!plan.wants_draft(i)) continue;
    num_places += plan.num_drafts_of(i);
    num_passes = std::max(num_passes, plan.num_drafts_of(i));
  }
  if (bounds.num_tokens == 0) return;
  reserve_distributions(num_places);
  bounds.num_logit_rows = num_drafting(plan, 0);
  bounds.num_seqs = plan.num_seqs();
  bounds.max_context_len = draft_->program().max_model_len;
  const PassBounds padded = draft_->padded(bounds), proposal = proposal_bounds(bounds.num_logit_rows);
  DraftPass pass = draft_pass(padded);
  // The first proposals are sampled as all others are, with as many rows.
  pass.padded_logit_rows = proposal.num_logit_rows;
  prepare_draft({.pass = pass,
                 .slots = on_device.slots,
                 .token_ids = on_device.token_ids,
                 .cu_query_lens = on_device.cu_query_lens,
                 .num_drafts = on_device.num_drafts,
                 .draft_lens = on_device.draft_lens,
                 .block_tables = on_device.draft_block_tables,
                 .cu_blocks = on_device.draft_cu_blocks,
                 .num_seqs = plan.num_seqs(),
                 .num_blocks = static_cast<int>(plan.draft_block_tables.size)},
                stream_);
  draft_->forward(padded);
  if (num_passes == 0) return commit_drafts(pass, 0);
  RowWishes wanted = wishes(plan, flight);
  wanted.reports = wanted.returns = false;
  wanted.judges = draws_drafts();
  if (!draft_->is_captured(proposal)) {
    for (int j = 0; j < num_passes; j++) propose(j, proposal_bounds(num_drafting(plan, j)), wanted);
    return;
  }
  draft_graphs_->run({proposal.num_logit_rows, num_passes, wanted.edits ? 1 : 0, wanted.filters ? 1 : 0, 0}, [&] {
    for (int j = 0; j < num_passes; j++) propose(j, proposal, wanted);
  });
}

// Draft j of all sequences that want more than j. Pass 0, which takes in no draft, has been queued.
void CudaBackend::propose(int j, const PassBounds& bounds, const RowWishes& wanted) {
  const DraftPass pass = draft_pass(bounds);
  if (j > 0) {
    advance_draft({.pass = pass, .index = j, .max_drafting = draft_->program().max_num_seqs}, stream_);
    draft_->run(bounds);
  }
  sample_drafts(bounds.num_logit_rows, wanted);
  draft_->end_sampling();
  commit_drafts(pass, j);
}

void CudaBackend::commit_drafts(const DraftPass& pass, int j) {
  commit_draft({.pass = pass, .tokens = draft_tokens_, .index = j, .max_seqs = draft_->program().max_num_seqs},
               stream_);
}

// draft_tokens_[row] = a token per row: sampled as the target samples, or, where draws_drafts(), drawn from the row's
// distribution, which is stored.
void CudaBackend::sample_drafts(int num_rows, const RowWishes& wanted) {
  const SamplingBatch batch{.rows = draft_->inputs().rows,
                            .num_rows = num_rows,
                            .slots = slots_->device(),
                            .token_ids = proposals_,
                            .is_greedy = greedy_draft_};
  draft_sampler_->sample(batch, wanted, draft_tokens_);
  if (!draws_drafts()) return;
  const int num_ids = draft_->program().sample_vocab_size;
  distribution({.batch = batch,
                .logits = draft_sampler_->edited_rows(),
                .ld = draft_sampler_->whole_ld(),
                .num_ids = num_ids,
                .listed = iota_,
                .num_listed = num_rows,
                .masses = q_masses(),
                .totals = q_totals(),
                .places = draft_state_.places},
               stream_);
  draw({.batch = batch,
        .listed = iota_,
        .num_listed = num_rows,
        .masses = q_masses(),
        .totals = q_totals(),
        .num_ids = num_ids,
        .rounds = draft_state_.draw_rounds,
        .tokens = draft_tokens_,
        .places = draft_state_.places},
       stream_);
}

}  // namespace nds::cuda
