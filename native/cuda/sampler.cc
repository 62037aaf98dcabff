// From a pass's logits to a token for every row, and to log-probabilities, over all ranks.
#include "cuda/sampler.h"

#include <algorithm>

#include "core/round_up.h"
#include "cuda/step.h"

namespace nds::cuda {
Sampler::Sampler(CudaModel& model, Exchange& exchange, cudaStream_t stream)
    : model_(model), exchange_(exchange), stream_(stream) {
  const ProgramSpec& program = model.program();
  const int64_t rows = program.max_num_logit_rows, world_size = exchange.world_size();
  const int64_t local = round_up(rows * model.ld_logits() * 4, 256), whole = round_up(rows * whole_ld() * 4, 256);
  const int64_t parts = rows * (whole_ld() + 32 * world_size) * 4;
  const int64_t partials = rows * kSampleSplits * static_cast<int64_t>(sizeof(Candidate));
  const int64_t candidates = rows * world_size * static_cast<int64_t>(sizeof(Candidate));
  memory_ = DeviceMemory(
      local + (is_alone() ? 0 : 2 * whole + round_up(parts, 256)) + round_up(partials, 256) + candidates, "sampling");
  uint8_t* next = memory_.as<>();
  const auto take = [&next](int64_t bytes) {
    uint8_t* const part = next;
    next += round_up(bytes, 256);
    return part;
  };
  edited_ = reinterpret_cast<float*>(take(local));
  if (!is_alone()) {
    raw_ = reinterpret_cast<float*>(take(whole));
    whole_ = reinterpret_cast<float*>(take(whole));
    parts_ = reinterpret_cast<float*>(take(parts));
  }
  partials_ = reinterpret_cast<Candidate*>(take(partials));
  candidates_ = reinterpret_cast<Candidate*>(take(candidates));
}

int64_t Sampler::whole_ld() const {
  return is_alone() ? model_.ld_logits() : round_up(model_.program().vocab_size, 32);
}

const float* Sampler::whole_rows() const { return is_alone() ? model_.logits() : raw_; }

void Sampler::gather_whole(const float* local, int num_rows, float* out) {
  const comm::VocabLayout& layout = model_.layout();
  std::vector<int64_t> counts;
  for (const int32_t num_ids : layout.num_ids) counts.push_back(num_rows * round_up(num_ids, 32) * 4);
  exchange_.all_gather(local, counts, parts_, model_.between_kernels());
  const float* part = parts_;
  int64_t first_id = 0;
  for (size_t r = 0; r < counts.size(); r++) {
    const int64_t num_ids = layout.num_ids[r], ld = round_up(num_ids, 32);
    if (num_ids > 0) {
      check(cudaMemcpy2DAsync(out + first_id, static_cast<size_t>(whole_ld()) * 4, part, static_cast<size_t>(ld) * 4,
                              static_cast<size_t>(num_ids) * 4, static_cast<size_t>(num_rows), cudaMemcpyDeviceToDevice,
                              stream_),
            "joining logits");
    }
    part += counts[r] / 4;
    first_id += num_ids;
  }
}

void Sampler::sample(const SamplingBatch& batch, const RowWishes& wishes, int32_t* tokens) {
  const ProgramSpec& program = model_.program();
  const int first_id = model_.first_token_id(), world_size = exchange_.world_size();
  const float* logits = model_.logits();
  if (!is_alone() && (wishes.reports || wishes.returns)) gather_whole(logits, batch.num_rows, raw_);
  if (wishes.edits) {
    process_logits({.batch = batch,
                    .logits = logits,
                    .edited = edited_,
                    .ld = model_.ld_logits(),
                    .first_id = first_id,
                    .num_ids = model_.num_token_ids()},
                   model_.between_kernels());
    logits = edited_;
  }
  last_edited_ = logits;
  const int num_drawable = std::max(0, std::min(model_.num_token_ids(), program.sample_vocab_size - first_id));
  const bool chooses_alone = is_alone() && !wishes.filters;
  const LaunchPlace place = model_.next_kernel();
  Candidate* const mine = candidates_ + int64_t{exchange_.rank()} * batch.num_rows;
  nds::cuda::sample({.batch = batch,
                     .logits = logits,
                     .ld = model_.ld_logits(),
                     .first_id = first_id,
                     .num_ids = num_drawable,
                     .partials = partials_,
                     .candidates = mine,
                     .tokens = chooses_alone ? tokens : nullptr},
                    place, model_.next_kernel());
  if (chooses_alone) return;
  if (!is_alone()) {
    const int64_t bytes = batch.num_rows * static_cast<int64_t>(sizeof(Candidate));
    exchange_.all_gather(mine, std::vector<int64_t>(world_size, bytes), candidates_, model_.between_kernels());
  }
  if (!is_alone() && (wishes.filters || wishes.judges)) {
    gather_whole(logits, batch.num_rows, whole_);
    last_edited_ = whole_;
  }
  // Rows with filters have no candidate of any rank yet. sample_filtered sees the ids of all ranks and fills the place
  // of rank 0.
  if (wishes.filters)
    sample_filtered({.batch = batch,
                     .logits = last_edited_,
                     .ld = whole_ld(),
                     .num_ids = program.sample_vocab_size,
                     .candidates = candidates_},
                    model_.between_kernels());
  choose({batch, candidates_, world_size, tokens}, model_.next_kernel());
}

void Sampler::log_probabilities(LogprobArgs to) {
  to.logits = whole_rows();
  to.ld = whole_ld();
  to.vocab_size = model_.program().vocab_size;
  to.num_drawable = model_.program().sample_vocab_size;
  nds::cuda::log_probabilities(to, stream_);
}

}  // namespace nds::cuda
