// The rules that judge drafts by distributions.
#include <algorithm>

#include "cuda/cuda_backend.h"
#include "cuda/draft.h"

namespace nds::cuda {

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

void CudaBackend::judge(const PlanView& plan, const DevicePlan& on_device, const Flight& flight,
                        const SamplingBatch& batch, const PassInputs& inputs) {
  const int num_ids = model_->program().sample_vocab_size, num_rows = flight.judged_rows.count;
  const int num_rounds = flight.judged_seqs.count;
  const int64_t p_bytes = int64_t{num_rows} * (int64_t{num_ids} + 1) * 8;
  if (p_bytes > p_memory_.size())
    p_memory_ = DeviceMemory(p_bytes + p_bytes / 4, "distributions of rows beside drafts");
  uint64_t* const p_masses = p_memory_.as<uint64_t>();
  uint64_t* const p_totals = p_masses + int64_t{num_rows} * num_ids;
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
                  .q_masses = q_masses(),
                  .q_totals = q_totals(),
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
