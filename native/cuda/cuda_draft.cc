// The draft model's part of a step, and the rules that judge drafts by distributions.
#include <algorithm>

#include "core/round_up.h"
#include "cuda/cuda_backend.h"
#include "cuda/draft.h"

namespace nds::cuda {
void CudaBackend::allocate_drafting() {
  const int64_t seqs = model_->program().max_num_seqs, rows = model_->program().max_num_logit_rows;
  // A multiple of 64, so that rounds_, which holds pointers, is aligned.
  const int64_t ints = round_up(seqs * kMaxPlanDrafts + 2 * rows + rows + 3 * seqs, 64);
  draft_memory_ = DeviceMemory(ints * 4 + seqs * static_cast<int64_t>(sizeof(Round)), "drafts");
  int32_t* next = draft_memory_.as<int32_t>();
  const auto take = [&next](int64_t count) {
    int32_t* const part = next;
    next += count;
    return part;
  };
  proposals_ = take(seqs * kMaxPlanDrafts);
  draft_tokens_ = take(rows);
  draw_rounds_ = take(rows);
  iota_ = take(rows);
  num_accepted_ = take(seqs);
  round_accepted_ = take(seqs);
  round_tokens_ = take(seqs);
  rounds_ = reinterpret_cast<Round*>(draft_memory_.as<int32_t>() + ints);
  std::vector<int32_t> numbers;
  for (int32_t i = 0; i < rows; i++) numbers.push_back(i);
  check(cudaMemcpyAsync(iota_, numbers.data(), numbers.size() * 4, cudaMemcpyHostToDevice, stream_),
        "uploading numbers");
  wait_for(stream_, &closed_);
}

void CudaBackend::find_draft_passes(const PlanView& plan, Flight& flight) const {
  flight.draft_seqs.clear();
  flight.draft_places.clear();
  int longest = 0;
  for (int i = 0; i < plan.num_seqs(); i++) {
    if (plan.wants_draft(i)) longest = std::max(longest, plan.num_drafts_of(i));
  }
  // Pass 0 also runs where no sequence drafts: it catches up.
  for (int pass = 0; pass < std::max(longest, plan.draft_lens.size > 0 ? 1 : 0); pass++) {
    List seqs{static_cast<int64_t>(flight.lists.size()), 0};
    for (int i = 0; i < plan.num_seqs(); i++) {
      if (!plan.wants_draft(i) || plan.num_drafts_of(i) <= pass) continue;
      flight.lists.push_back(i);
      seqs.count++;
    }
    List places{static_cast<int64_t>(flight.lists.size()), seqs.count};
    int first = 0;  // place of the first draft of sequence i
    for (int i = 0; i < plan.num_seqs(); i++) {
      if (!plan.wants_draft(i)) continue;
      if (plan.num_drafts_of(i) > pass) flight.lists.push_back(first + pass);
      first += plan.num_drafts_of(i);
    }
    flight.draft_seqs.push_back(seqs);
    flight.draft_places.push_back(places);
  }
}

void CudaBackend::find_rounds(const PlanView& plan, Flight& flight) const {
  flight.judged_seqs = flight.judged_rows = flight.p_places = flight.q_places = {};
  if (!judges()) return;
  std::vector<int32_t> seqs, rows, p_places, q_places;
  int first_drawn = 0;
  for (int i = 0; i < plan.num_seqs(); i++) {
    const int num_drafts = plan.num_drafts_of(i);
    if (num_drafts == 0) continue;
    const int32_t* const end = plan.logit_rows.data + plan.logit_rows.size;
    const int32_t* const first =
        std::lower_bound(plan.logit_rows.data, end, plan.cu_query_lens[i + 1] - 1 - num_drafts);
    seqs.push_back(i);
    p_places.push_back(static_cast<int32_t>(rows.size()));
    for (int j = 0; j <= num_drafts; j++) rows.push_back(static_cast<int32_t>(first - plan.logit_rows.data) + j);
    const bool was_drawn = plan.wants_draft(i) && draws_drafts();
    q_places.push_back(was_drawn ? first_drawn : -1);
    if (plan.wants_draft(i)) first_drawn += num_drafts;
  }
  const auto add = [&flight](const std::vector<int32_t>& list) {
    const List part{static_cast<int64_t>(flight.lists.size()), static_cast<int>(list.size())};
    flight.lists.insert(flight.lists.end(), list.begin(), list.end());
    return part;
  };
  flight.judged_seqs = add(seqs);
  flight.judged_rows = add(rows);
  flight.p_places = add(p_places);
  flight.q_places = add(q_places);
}

void CudaBackend::run_draft(const PlanView& plan, const DevicePlan& on_device, const Flight& flight) {
  const ProgramSpec& program = draft_->program();
  const int64_t num_ids = program.sample_vocab_size;
  int num_places = 0, max_tokens = 0, max_catch_up = 0;
  for (int i = 0; i < plan.num_seqs(); i++) {
    const SlotBounds slot = slots_->bounds(plan.slots[i]);
    const int32_t count = std::min(plan.draft_lens[i], slot.most_behind);
    max_tokens += count;
    max_catch_up = std::max(max_catch_up, count);
    if (plan.wants_draft(i)) num_places += plan.num_drafts_of(i);
  }
  if (max_tokens == 0) return;
  // Masses, then totals.
  const int64_t q_bytes = num_places * (num_ids + 1) * 8;
  if (draws_drafts() && q_bytes > q_memory_.size())
    q_memory_ = DeviceMemory(q_bytes + q_bytes / 4, "distributions of drafts");
  for (int pass = 0; pass < static_cast<int>(flight.draft_seqs.size()); pass++) {
    const List& seqs = flight.draft_seqs[pass];
    PassBounds bounds;
    bounds.num_tokens = pass == 0 ? max_tokens : seqs.count;
    bounds.num_logit_rows = seqs.count;
    bounds.num_seqs = pass == 0 ? plan.num_seqs() : seqs.count;
    bounds.max_query_len = pass == 0 ? max_catch_up : 1;
    bounds.max_context_len = program.max_model_len;
    const PassBounds padded = draft_->padded(bounds);
    const PassInputs& inputs = draft_->inputs();
    prepare_draft({.slots = on_device.slots,
                   .token_ids = on_device.token_ids,
                   .cu_query_lens = on_device.cu_query_lens,
                   .num_drafts = on_device.num_drafts,
                   .draft_lens = on_device.draft_lens,
                   .block_tables = on_device.draft_block_tables,
                   .cu_blocks = on_device.draft_cu_blocks,
                   .sampling_seqs = on_device.lists + seqs.offset,
                   .proposals = proposals_,
                   .num_seqs = plan.num_seqs(),
                   .num_rows = seqs.count,
                   .num_blocks = static_cast<int>(plan.draft_block_tables.size),
                   .pass = pass,
                   .padded_tokens = padded.num_tokens,
                   .padded_logit_rows = padded.num_logit_rows,
                   .block_size = program.kv.block_size,
                   .vocab_size = program.vocab_size,
                   .slot_table = slots_->device(),
                   .out = inputs,
                   .draw_rounds = draw_rounds_,
                   .fault = result_.fault},
                  stream_);
    draft_->forward(padded);
    if (seqs.count > 0) {
      const SamplingBatch batch{.rows = inputs.rows,
                                .num_rows = padded.num_logit_rows,
                                .slots = slots_->device(),
                                .token_ids = proposals_,
                                .is_greedy = greedy_draft_};
      sample_drafts(plan, flight, batch, seqs.count, num_places, on_device.lists + flight.draft_places[pass].offset);
    }
    commit_draft({.in = inputs,
                  .pass_slots = inputs.first_samples,
                  .sampling_seqs = on_device.lists + seqs.offset,
                  .tokens = draft_tokens_,
                  .num_rows = seqs.count,
                  .pass = pass,
                  .max_seqs = program.max_num_seqs,
                  .slot_table = slots_->device(),
                  .proposals = proposals_,
                  .fault = result_.fault},
                 stream_);
  }
}

// draft_tokens_[row] = a token per row: sampled as the target samples, or, where draws_drafts(), drawn from the
// distribution that is stored at places[row].
void CudaBackend::sample_drafts(const PlanView& plan, const Flight& flight, const SamplingBatch& batch, int num_rows,
                                int num_places, const int32_t* places) {
  RowWishes wanted = wishes(plan, flight);
  wanted.reports = wanted.returns = false;
  wanted.judges = draws_drafts();
  draft_sampler_->sample(batch, wanted, draft_tokens_);
  if (!draws_drafts()) return;
  const int num_ids = draft_->program().sample_vocab_size;
  uint64_t* const q_masses = q_memory_.as<uint64_t>();
  uint64_t* const q_totals = q_masses + int64_t{num_places} * num_ids;
  distribution({.batch = batch,
                .logits = draft_sampler_->edited_rows(),
                .ld = draft_sampler_->whole_ld(),
                .num_ids = num_ids,
                .listed = iota_,
                .num_listed = num_rows,
                .masses = q_masses,
                .totals = q_totals,
                .places = places},
               stream_);
  draw({.batch = batch,
        .listed = iota_,
        .num_listed = num_rows,
        .masses = q_masses,
        .totals = q_totals,
        .num_ids = num_ids,
        .rounds = draw_rounds_,
        .tokens = draft_tokens_,
        .places = places},
       stream_);
}

void CudaBackend::judge(const PlanView& plan, const DevicePlan& on_device, const Flight& flight,
                        const SamplingBatch& batch, const PassInputs& inputs) {
  const int num_ids = model_->program().sample_vocab_size, num_rows = flight.judged_rows.count;
  const int num_rounds = flight.judged_seqs.count;
  const int64_t p_bytes = int64_t{num_rows} * (int64_t{num_ids} + 1) * 8;
  if (p_bytes > p_memory_.size())
    p_memory_ = DeviceMemory(p_bytes + p_bytes / 4, "distributions of rows beside drafts");
  uint64_t* const p_masses = p_memory_.as<uint64_t>();
  uint64_t* const p_totals = p_masses + int64_t{num_rows} * num_ids;
  int64_t num_places = 0;
  for (int i = 0; i < plan.num_seqs(); i++) num_places += plan.wants_draft(i) ? plan.num_drafts_of(i) : 0;
  const uint64_t* const q_masses = q_memory_.as<uint64_t>();
  const uint64_t* const q_totals = q_masses + num_places * num_ids;
  const int32_t* const lists = on_device.lists;
  distribution({.batch = batch,
                .logits = sampler_->edited_rows(),
                .ld = sampler_->whole_ld(),
                .num_ids = num_ids,
                .listed = lists + flight.judged_rows.offset,
                .num_listed = num_rows,
                .masses = p_masses,
                .totals = p_totals},
               stream_);
  const int32_t* const seqs = lists + flight.judged_seqs.offset;
  prepare_rounds({.seqs = seqs,
                  .p_places = lists + flight.p_places.offset,
                  .q_places = lists + flight.q_places.offset,
                  .num_rounds = num_rounds,
                  .num_ids = num_ids,
                  .rows = inputs.rows,
                  .first_samples = inputs.first_samples,
                  .p_masses = p_masses,
                  .p_totals = p_totals,
                  .q_masses = q_masses,
                  .q_totals = q_totals,
                  .rounds = rounds_,
                  .num_accepted = num_accepted_,
                  .num_seqs = plan.num_seqs()},
                 stream_);
  accept_drafts({.slots = slots_->device(),
                 .token_ids = inputs.token_ids,
                 .is_block_rule = draft_rule_ == DraftRule::block,
                 .rounds = rounds_,
                 .num_rounds = num_rounds,
                 .num_ids = num_ids,
                 .num_accepted = round_accepted_,
                 .tokens = round_tokens_},
                stream_);
  apply_rounds({.seqs = seqs,
                .num_rounds = num_rounds,
                .round_accepted = round_accepted_,
                .round_tokens = round_tokens_,
                .cu_query_lens = on_device.cu_query_lens,
                .num_drafts = on_device.num_drafts,
                .token_ids = inputs.token_ids,
                .first_samples = inputs.first_samples,
                .tokens = result_.tokens,
                .num_accepted = num_accepted_,
                .fault = result_.fault},
               stream_);
}

}  // namespace nds::cuda
