// From a pass's logits to a token for every row, over all ranks.
#include "cpu/sampler.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>

#include "core/error.h"
#include "core/round_up.h"
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
  const int64_t vocab_size = program.vocab_size, num_threads = pool.size();
  scratch_stride_ = round_up(std::max(kernels.filter_scratch_bytes(program.vocab_size, pool.size()),
                                      kernels.accept_scratch_bytes(pool.size())),
                             64);
  scratch_ = HugeMemory(static_cast<size_t>(scratch_stride_ * num_threads), "sampling");
  if (!is_alone()) whole_ = HugeMemory(static_cast<size_t>(vocab_size * 4 * num_threads), "whole rows of logits");
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
    if (row.kind != LogitRowKind::sample || pass.is_filtered(row) || pass.is_judged(row)) continue;
    Candidate best{0, -1};
    for (int r = 0; r < comm_.world_size(); r++) keep_better(best, candidates[r * num_rows + i]);
    if (best.id < 0) fail_without_numbers(pass, row);
    row.sampled = best.id;
  }
  choose_from_whole(pass);
}

void Sampler::choose_from_whole(Pass& pass) {
  std::vector<int> rows;
  std::vector<WholeRow> wholes;
  std::vector<KeptDistribution*> drafts;  // of each of the rows; null = none
  for (int i = 0; i < pass.num_logit_rows(); i++) {
    const LogitRow& row = pass.rows[i];
    const bool is_judged = pass.is_judged(row);
    if (row.kind != LogitRowKind::sample || !(is_judged ? pass.is_draft : pass.is_filtered(row))) continue;
    rows.push_back(i);
    wholes.push_back(whole_row(pass, i));
    drafts.push_back(nullptr);
    if (!is_judged) continue;
    std::vector<KeptDistribution>& kept = pass.seqs[row.seq].proposal->distributions;
    kept.emplace_back(program_.sample_vocab_size);
    drafts.back() = &kept.back();
  }
  if (rows.empty()) return;
  each_whole(wholes, [&](int i, const float* whole, uint8_t* scratch, const Team& team) {
    LogitRow& row = pass.rows[rows[i]];
    SampleParams params = sample_params(pass, row);
    const int n = program_.sample_vocab_size;
    int32_t token = -1;
    if (drafts[i] == nullptr) {
      token = kernels_.sample_filtered_row(whole, n, params, scratch, team).id;
    } else {
      KeptDistribution& kept = *drafts[i];
      const Distribution q = kernels_.distribution(whole, n, params, scratch, kept.ids(), kept.masses(), team);
      params.stream = NoiseStream::draft;
      params.round = params.position - static_cast<uint32_t>(pass.seqs[row.seq].proposal->tokens.size());
      token = kernels_.draw(q, params, scratch, team);
      if (team.tid == 0) kept.set(q.n, q.total);
    }
    if (team.tid == 0) row.sampled = token;
  });
  for (const int i : rows) {
    if (pass.rows[i].sampled < 0) fail_without_numbers(pass, pass.rows[i]);
  }
}

// A small top-k leaves few ids after one pass, which takes less than the barriers of a team.
Sampler::WholeRow Sampler::whole_row(const Pass& pass, int logit_row) const {
  constexpr int kFewIds = 256;
  const SampleParams params = sample_params(pass, pass.rows[logit_row]);
  return {row_to_sample(pass, logit_row), params.temperature > 0 && !(params.top_k > 0 && params.top_k <= kFewIds)};
}

template <typename Work>
void Sampler::each_whole(const std::vector<WholeRow>& rows, const Work& work) {
  const int num_rows = static_cast<int>(rows.size()), num_threads = pool_.size();
  // Other ranks' parts are gathered for as many rows at a time as there is room for.
  const int at_once = is_alone() ? num_rows : num_threads;
  std::vector<const float*> whole(num_rows);
  for (int first = 0; first < num_rows; first += at_once) {
    const int end = std::min(num_rows, first + at_once);
    std::vector<int> undivided, divided;
    for (int i = first; i < end; i++) {
      whole[i] = gather_whole(rows[i].local, program_.sample_vocab_size, i - first);
      (rows[i].is_worth_teams ? divided : undivided).push_back(i);
    }
    // As many rows as there are threads keep all of them busy without a barrier.
    const auto left_over = divided.end() - static_cast<int>(divided.size()) % num_threads;
    undivided.insert(undivided.end(), divided.begin(), left_over);
    divided.erase(divided.begin(), left_over);
    std::atomic<size_t> next{0};
    pool_.run([&](int tid) {
      for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < undivided.size();)
        work(undivided[i], whole[undivided[i]], scratch_of(tid), Team{});
      // A team uses the scratch of thread 0, which may not have left its last row.
      if (!divided.empty() && !undivided.empty()) pool_.barrier();
      for (const int i : divided) work(i, whole[i], scratch_of(0), team_of(tid));
    });
  }
}

Team Sampler::team_of(int tid) const {
  return {.tid = tid,
          .size = pool_.size(),
          .barrier = [](void* pool) { static_cast<ThreadPool*>(pool)->barrier(); },
          .pool = &pool_};
}

void Sampler::fail_without_numbers(const Pass& pass, const LogitRow& row) const {
  const char* const reason = row.edited ? "its bans leave none, or " : "";
  throw Error("ERR_CHECKPOINT", "Expected logits that are numbers for sequence " + std::to_string(row.seq) +
                                    " of plan " + std::to_string(pass.step) + " but received none: " + reason +
                                    "the weights hold infinities or overflow");
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

const float* Sampler::gather_whole(const float* local, int limit, int index) {
  if (is_alone()) return local;
  std::vector<int64_t> counts;
  int remaining = limit;
  for (const int32_t num_ids : layout_.num_ids) {
    const int taken = std::min(remaining, num_ids);
    counts.push_back(int64_t{taken} * 4);
    remaining -= taken;
  }
  float* const whole = reinterpret_cast<float*>(whole_.data()) + int64_t{index} * program_.vocab_size;
  comm_.all_gather(local, counts.data(), whole);
  return whole;
}

Accepted Sampler::judge(const Pass& pass, int first_row) {
  const LogitRow& first = pass.rows[first_row];
  const PassSequence& seq = pass.seqs[first.seq];
  const int num_drafts = static_cast<int>(seq.drafts.size());
  std::vector<WholeRow> rows;
  for (int j = 0; j <= num_drafts; j++) rows.push_back(whole_row(pass, first_row + j));
  while (judged_.size() < rows.size()) judged_.emplace_back(program_.sample_vocab_size);
  std::vector<Distribution> p(rows.size()), q;
  each_whole(rows, [&](int j, const float* whole, uint8_t* scratch, const Team& team) {
    const Distribution found =
        kernels_.distribution(whole, program_.sample_vocab_size, sample_params(pass, pass.rows[first_row + j]), scratch,
                              judged_[j].ids(), judged_[j].masses(), team);
    if (team.tid == 0) p[j] = found;
  });
  for (int j = 0; j <= num_drafts; j++) {
    if (p[j].n == 0) fail_without_numbers(pass, pass.rows[first_row + j]);
  }
  for (int j = 0; j < num_drafts; j++) {
    const bool was_drawn = seq.proposal != nullptr && !seq.proposal->distributions.empty();
    // A draft that was not drawn has all the mass.
    q.push_back(was_drawn ? seq.proposal->distributions[j].view()
                          : Distribution{&seq.drafts[j], &kOneMass, 1, kOneMass});
  }
  const SampleParams params = sample_params(pass, first);
  const AcceptArgs args{.rule = pass.rule == DraftRule::block ? AcceptRule::block : AcceptRule::standard,
                        .num_drafts = num_drafts,
                        .drafts = seq.drafts.data(),
                        .q = q.data(),
                        .p = p.data(),
                        .seed = params.seed,
                        .position = params.position,
                        .sample_index = params.sample_index,
                        .round = params.position};
  Accepted accepted{};
  pool_.run([&](int tid) {
    const Accepted found = kernels_.accept_drafts(args, scratch_of(0), team_of(tid));
    if (tid == 0) accepted = found;
  });
  return accepted;
}

// Rank 0 divides the rows among its threads. With more ranks, it gathers them first, as many at a time as it has
// threads.
void Sampler::log_probabilities(const Pass& pass, StepResult& result) {
  const int num_rows = static_cast<int>(pass.logprob_rows.size());
  const int at_once = is_alone() ? num_rows : pool_.size();
  std::vector<const float*> whole(at_once);
  for (int first = 0; first < num_rows; first += at_once) {
    const int count = std::min(at_once, num_rows - first);
    for (int i = 0; i < count; i++) {
      const int row = pass.logprob_rows[first + i].logit_row;
      whole[i] = gather_whole(logits_.data + row * logits_.ld, program_.vocab_size, i);
    }
    if (comm_.rank() != 0) continue;
    std::atomic<int> next{0};
    pool_.run([&](int) {
      for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;)
        result.logprob_ranks[first + i] = log_probabilities_of(pass.logprob_rows[first + i], whole[i], result);
    });
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
