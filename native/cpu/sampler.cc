// From a pass's logits to a token for every row, over all ranks.
#include "cpu/sampler.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/error.h"
#include "step/process_logits.h"

namespace nds::cpu {
namespace {

// Ties go to the lowest id: ranks and threads hold ascending ids, so it comes first.
void keep_better(Candidate& best, const Candidate& other) {
  if (other.id >= 0 && (best.id < 0 || other.value > best.value)) best = other;
}

}  // namespace

Sampler::Sampler(const ProgramSpec& program, const LocalLogits& logits, const Kernels& kernels, ThreadPool& pool,
                 comm::Communicator& comm, const comm::VocabLayout& layout)
    : program_(program), logits_(logits), kernels_(kernels), pool_(pool), comm_(comm), layout_(layout) {
  const int64_t num_rows = program.max_num_logit_rows;
  edited_ = HugeMemory(static_cast<size_t>(logits.ld * 4 * num_rows), "edited logits");
  candidates_.resize(static_cast<size_t>(num_rows) * pool.size());
  of_all_ranks_.resize(static_cast<size_t>(num_rows) * comm.world_size());
  whole_.resize(program.vocab_size);
  filter_scratch_.resize(kernels.filter_scratch_bytes(program.vocab_size));
}

SampleParams Sampler::sample_params(const Pass& pass, const LogitRow& row) const {
  const SlotParams& p = pass.params_of(row);
  if (pass.is_greedy) return {};
  const uint32_t position = static_cast<uint32_t>(pass.positions[row.row]) + 1;
  return {.temperature = p.temperature,
          .top_p = p.top_p,
          .min_p = p.min_p,
          .top_k = p.top_k,
          .seed = p.seed,
          .position = position,
          .sample_index = p.sample_index};
}

void Sampler::sample_local(const Pass& pass, int tid) {
  const int num_threads = pool_.size();
  const int num_ids = std::max(0, std::min(logits_.num_ids, program_.sample_vocab_size - logits_.first_id));
  // Shares begin at multiples of 64 ids: whole cache lines and whole blocks of random numbers.
  const int share = (num_ids + num_threads * 64 - 1) / (num_threads * 64) * 64;
  const int begin = std::min(num_ids, tid * share), end = std::min(num_ids, begin + share);
  const int first_id = logits_.first_id + begin;
  for (int i = 0; i < pass.num_logit_rows(); i++) {
    const LogitRow& row = pass.rows[i];
    if (row.kind != LogitRowKind::sample) continue;
    if (row.edited) {
      process_logits(logits_.data + i * logits_.ld + begin, first_id, end - begin, *pass.seqs[row.seq].slot,
                     pass.drafts_before(row), pass.num_output_at(row), edited_row(i) + begin);
    }
    if (pass.is_filtered(row) || pass.is_judged(row)) continue;
    const float* const to_sample = row_to_sample(pass, i) + begin;
    candidates_[i * num_threads + tid] =
        kernels_.sample_row(to_sample, end - begin, first_id, sample_params(pass, row));
  }
}

void Sampler::choose(Pass& pass, StepResult& result) {
  const int num_rows = pass.num_logit_rows();
  const Candidate* const candidates = gather_candidates(num_rows);
  for (int i = 0; i < num_rows; i++) {
    LogitRow& row = pass.rows[i];
    if (row.kind == LogitRowKind::give_back) {
      const float* const logits = gather_whole(logits_.data + i * logits_.ld, program_.vocab_size);
      result.logits.insert(result.logits.end(), logits, logits + program_.vocab_size);
    }
    if (row.kind == LogitRowKind::sample && !pass.is_judged(row)) row.sampled = best_of(pass, i, candidates);
  }
  if (!pass.is_draft) return;
  for (int i = 0; i < num_rows; i++) {
    if (pass.is_judged(pass.rows[i])) pass.rows[i].sampled = propose(pass, i);
  }
}

const Candidate* Sampler::gather_candidates(int num_rows) {
  const int num_threads = pool_.size();
  for (int row = 0; row < num_rows; row++) {
    Candidate best = candidates_[row * num_threads];
    for (int t = 1; t < num_threads; t++) keep_better(best, candidates_[row * num_threads + t]);
    candidates_[row] = best;
  }
  if (is_alone()) return candidates_.data();
  const std::vector<int64_t> counts(comm_.world_size(), int64_t{num_rows} * static_cast<int64_t>(sizeof(Candidate)));
  comm_.all_gather(candidates_.data(), counts.data(), of_all_ranks_.data());
  return of_all_ranks_.data();
}

int32_t Sampler::best_of(const Pass& pass, int logit_row, const Candidate* candidates) {
  const LogitRow& row = pass.rows[logit_row];
  Candidate best{0, -1};
  if (pass.is_filtered(row)) {
    const int num_ids = program_.sample_vocab_size;
    best = kernels_.sample_filtered_row(gather_whole(row_to_sample(pass, logit_row), num_ids), num_ids,
                                        sample_params(pass, row), filter_scratch_.data());
  } else {
    for (int r = 0; r < comm_.world_size(); r++) keep_better(best, candidates[r * pass.num_logit_rows() + logit_row]);
  }
  if (best.id >= 0) return best.id;
  const char* const reason = row.edited ? "its bans leave none, or " : "";
  throw Error("ERR_CHECKPOINT", "Expected logits that are numbers for sequence " + std::to_string(row.seq) +
                                    " of plan " + std::to_string(pass.step) + " but received none: " + reason +
                                    "the weights hold infinities or overflow");
}

const float* Sampler::gather_whole(const float* local, int limit) {
  if (is_alone()) return local;
  std::vector<int64_t> counts;
  int remaining = limit;
  for (const int32_t num_ids : layout_.num_ids) {
    const int taken = std::min(remaining, num_ids);
    counts.push_back(int64_t{taken} * 4);
    remaining -= taken;
  }
  comm_.all_gather(local, counts.data(), whole_.data());
  return whole_.data();
}

KeptDistribution Sampler::distribution_of(const Pass& pass, int logit_row) {
  const int n = program_.sample_vocab_size;
  const float* const logits = gather_whole(row_to_sample(pass, logit_row), n);
  KeptDistribution kept;
  kept.ids.resize(n);
  kept.masses.resize(n);
  const Distribution found = kernels_.distribution(logits, n, sample_params(pass, pass.rows[logit_row]),
                                                   filter_scratch_.data(), kept.ids.data(), kept.masses.data());
  if (found.n == 0) throw Error("ERR_CHECKPOINT", "Expected logits that are numbers but received none");
  kept.ids.resize(found.n);
  kept.masses.resize(found.n);
  kept.total = found.total;
  return kept;
}

int32_t Sampler::propose(const Pass& pass, int logit_row) {
  const LogitRow& row = pass.rows[logit_row];
  Proposal& proposal = *pass.seqs[row.seq].proposal;
  KeptDistribution q = distribution_of(pass, logit_row);
  SampleParams address = sample_params(pass, row);
  address.stream = NoiseStream::draft;
  address.round = address.position - static_cast<uint32_t>(proposal.tokens.size());
  const int32_t token = kernels_.draw(q.view(), address);
  proposal.distributions.push_back(std::move(q));
  return token;
}

Accepted Sampler::judge(const Pass& pass, int first_row) {
  const LogitRow& first = pass.rows[first_row];
  const PassSequence& seq = pass.seqs[first.seq];
  const int num_drafts = static_cast<int>(seq.drafts.size());
  std::vector<KeptDistribution> kept;
  std::vector<Distribution> p, q;
  for (int j = 0; j <= num_drafts; j++) kept.push_back(distribution_of(pass, first_row + j));
  for (const KeptDistribution& distribution : kept) p.push_back(distribution.view());
  for (int j = 0; j < num_drafts; j++) {
    const bool was_drawn = seq.proposal != nullptr && !seq.proposal->distributions.empty();
    // A draft that was not drawn has all the mass.
    q.push_back(was_drawn ? seq.proposal->distributions[j].view()
                          : Distribution{&seq.drafts[j], &kOneMass, 1, kOneMass});
  }
  const AcceptRule rule = pass.rule == DraftRule::block ? AcceptRule::block : AcceptRule::standard;
  const SampleParams params = sample_params(pass, first);
  return kernels_.accept_drafts({.rule = rule,
                                 .num_drafts = num_drafts,
                                 .drafts = seq.drafts.data(),
                                 .q = q.data(),
                                 .p = p.data(),
                                 .seed = params.seed,
                                 .position = params.position,
                                 .sample_index = params.sample_index,
                                 .round = params.position});
}

// A single rank has whole rows and divides them among its threads; with more ranks, rank 0 gathers them one by one.
void Sampler::log_probabilities(const Pass& pass, StepResult& result) {
  const int num_rows = static_cast<int>(pass.logprob_rows.size());
  const auto local = [&](int i) { return logits_.data + pass.logprob_rows[i].logit_row * logits_.ld; };
  const auto report = [&](int i, const float* whole) {
    result.logprob_ranks[i] = log_probabilities_of(pass.logprob_rows[i], whole, result);
  };
  if (is_alone()) {
    pool_.run([&](int tid) {
      for (int i = tid; i < num_rows; i += pool_.size()) report(i, local(i));
    });
    return;
  }
  for (int i = 0; i < num_rows; i++) {
    const float* const whole = gather_whole(local(i), program_.vocab_size);
    if (comm_.rank() == 0) report(i, whole);
  }
}

int32_t Sampler::log_probabilities_of(const LogprobRow& row, const float* logits, StepResult& result) const {
  return kernels_.log_probabilities({.logits = logits,
                                     .vocab_size = program_.vocab_size,
                                     .num_drawable = program_.sample_vocab_size,
                                     .token = row.token,
                                     .num_likeliest = row.num_likeliest,
                                     .ids = result.logprob_ids.data() + row.offset,
                                     .logprobs = result.logprobs.data() + row.offset});
}

}  // namespace nds::cpu
