// Distributions, draws and accepted drafts: integer for integer those of the CPU's operators.
#include "step/accept.h"

#include <algorithm>
#include <numeric>

#include "sampling_host.h"

namespace nds::cuda::test {
namespace {

// A distribution as masses by id, and as the CPU has it: ids with their masses.
struct Dense {
  std::vector<uint64_t> masses;  // [n]
  std::vector<int32_t> ids;
  std::vector<uint64_t> of_ids;
  uint64_t total = 0;

  explicit Dense(const std::vector<uint64_t>& by_id) : masses(by_id) {
    for (size_t id = 0; id < masses.size(); id++) {
      if (masses[id] == 0) continue;
      ids.push_back(static_cast<int32_t>(id));
      of_ids.push_back(masses[id]);
      total += masses[id];
    }
  }
  Distribution view() const { return {ids.data(), of_ids.data(), static_cast<int>(ids.size()), total}; }
};

std::vector<uint64_t> cpu_masses(const float* logits, int n, const cpu::SampleParams& params) {
  std::vector<uint8_t> scratch(reference::filter_scratch_bytes(n, 1));
  std::vector<int32_t> ids(n);
  std::vector<uint64_t> of_ids(n), masses(n, 0);
  const Distribution found =
      reference::distribution(logits, n, params, scratch.data(), ids.data(), of_ids.data(), cpu::Team{});
  for (int i = 0; i < found.n; i++) masses[ids[i]] = of_ids[i];
  return masses;
}

int32_t cpu_draw(const Dense& from, const cpu::SampleParams& address) {
  std::vector<uint8_t> scratch(reference::accept_scratch_bytes(1));
  return reference::draw(from.view(), address, scratch.data(), cpu::Team{});
}

CUDA_TEST(distributions_and_draws) {
  const int num_rows = any(1, 4), n = chance(50) ? any(4, 300) : any(300, 3000), ld = n + any(0, 3);
  const bool is_greedy = chance(10);
  std::vector<Slot> host_slots(num_rows);
  std::vector<float> host_logits;
  for (Slot& slot : host_slots) {
    slot.params = random_params(chance(70));
    std::vector<float> row = random_logits(n);
    row.resize(ld, 1e30f);
    host_logits.insert(host_logits.end(), row.begin(), row.end());
  }
  std::vector<LogitRow> host_rows = random_rows(num_rows);
  for (LogitRow& row : host_rows) row.row = 0, row.kind = 0, row.slot = any(0, num_rows - 1);
  const int num_listed = any(1, num_rows);
  // Distribution i lies at place i, or at a random place.
  const bool has_places = chance(50);
  const int num_places = num_listed + (has_places ? any(0, 3) : 0);
  std::vector<int32_t> host_places(num_places);
  std::iota(host_places.begin(), host_places.end(), 0);
  if (has_places) std::shuffle(host_places.begin(), host_places.end(), engine);
  std::vector<int32_t> host_listed, host_rounds;
  for (int i = 0; i < num_listed; i++) {
    host_listed.push_back(any(0, num_rows - 1));
    host_rounds.push_back(any(0, 100000));
  }
  const DeviceSlots slots(host_slots, n);
  const Device<LogitRow> rows(host_rows);
  const Device<float> logits(host_logits);
  const Device<int32_t> listed(host_listed), rounds(host_rounds), tokens(size_t{} + num_listed);
  const Device<int32_t> places(host_places);
  const int32_t* const at = has_places ? places.data : nullptr;
  const Device<uint64_t> masses(size_t(num_places) * n), totals(size_t{} + num_places);
  const SamplingBatch batch{
      .rows = rows.data, .num_rows = num_rows, .slots = slots.data(), .token_ids = nullptr, .is_greedy = is_greedy};
  distribution({.batch = batch,
                .logits = logits.data,
                .ld = ld,
                .num_ids = n,
                .listed = listed.data,
                .num_listed = num_listed,
                .masses = masses.data,
                .totals = totals.data,
                .places = at},
               stream);
  draw({.batch = batch,
        .listed = listed.data,
        .num_listed = num_listed,
        .masses = masses.data,
        .totals = totals.data,
        .num_ids = n,
        .rounds = rounds.data,
        .tokens = tokens.data,
        .places = at},
       stream);

  // Other places keep their poison.
  std::vector<uint64_t> want_masses(masses.size, ~uint64_t{0}), want_totals(totals.size, ~uint64_t{0});
  std::vector<int32_t> want_tokens;
  for (int i = 0; i < num_listed; i++) {
    const LogitRow& row = host_rows[host_listed[i]];
    cpu::SampleParams params = sample_params(host_slots[row.slot].params, row.position, is_greedy);
    const Dense dense(cpu_masses(host_logits.data() + host_listed[i] * ld, n, params));
    std::copy(dense.masses.begin(), dense.masses.end(), want_masses.begin() + int64_t{host_places[i]} * n);
    want_totals[host_places[i]] = dense.total;
    params.stream = NoiseStream::draft;
    params.round = static_cast<uint32_t>(host_rounds[i]);
    want_tokens.push_back(cpu_draw(dense, params));
  }
  expect_same("masses", masses.read(), want_masses);
  expect_same("totals", totals.read(), want_totals);
  expect_same("draws", tokens.read(), want_tokens);
}

// p and q close to each other, so that drafts are often accepted.
std::vector<float> near_logits(const std::vector<float>& base, float scale) {
  std::vector<float> logits = base;
  for (float& x : logits) x += normal(scale);
  return logits;
}

void run_rounds(bool is_block_rule) {
  const int num_rounds = any(1, 3), n = chance(50) ? any(3, 40) : any(40, 1200);
  std::vector<Slot> host_slots(num_rounds);
  std::vector<Round> host_rounds;
  std::vector<int32_t> token_ids{-7, -7}, want_accepted, want_tokens;
  std::vector<std::unique_ptr<Device<uint64_t>>> arrays;
  const auto keep = [&arrays](const std::vector<uint64_t>& values) {
    arrays.push_back(std::make_unique<Device<uint64_t>>(values));
    return arrays.back()->data;
  };
  for (int r = 0; r < num_rounds; r++) {
    SlotParams& params = host_slots[r].params;
    params = random_params(chance(50));
    params.temperature = std::exp(normal(0.3f));
    const int num_drafts = chance(10) ? 0 : chance(10) ? any(1, 64) : any(1, 8), position = any(0, 100000);
    const bool is_drawn = chance(75);
    const float scale = chance(30) ? 0 : chance(50) ? 0.1f : 2.0f;
    std::vector<Dense> p, q;
    std::vector<int32_t> drafts;
    for (int j = 0; j <= num_drafts; j++) {
      const std::vector<float> base = normals(n, chance(50) ? 0.5f : 3.0f);
      const cpu::SampleParams all = sample_params(params, position + j, false);
      p.emplace_back(cpu_masses(near_logits(base, scale).data(), n, all));
      if (j == num_drafts) break;
      cpu::SampleParams address = all;
      address.stream = NoiseStream::draft;
      address.round = static_cast<uint32_t>(position);
      q.emplace_back(cpu_masses(base.data(), n, all));
      drafts.push_back(cpu_draw(q.back(), address));
      if (is_drawn) continue;
      if (chance(70)) drafts.back() = p.back().ids[any(0, static_cast<int>(p.back().ids.size()) - 1)];
      // A plan may offer an id past the distribution, which is never drawn.
      if (chance(10)) drafts.back() = n + any(0, 9);
      std::vector<uint64_t> one(n + 10, 0);
      one[drafts.back()] = kOneMass;
      q.back() = Dense(one);
    }
    std::vector<Distribution> p_views, q_views;
    std::vector<uint64_t> p_masses, q_masses, p_totals, q_totals;
    const auto flatten = [](const std::vector<Dense>& from, auto& views, auto& masses, auto& totals) {
      for (const Dense& dense : from) {
        views.push_back(dense.view());
        masses.insert(masses.end(), dense.masses.begin(), dense.masses.end());
        totals.push_back(dense.total);
      }
    };
    flatten(p, p_views, p_masses, p_totals);
    flatten(q, q_views, q_masses, q_totals);
    const cpu::AcceptArgs args{.rule = is_block_rule ? AcceptRule::block : AcceptRule::standard,
                               .num_drafts = num_drafts,
                               .drafts = drafts.data(),
                               .q = q_views.data(),
                               .p = p_views.data(),
                               .seed = params.seed,
                               .position = static_cast<uint32_t>(position),
                               .sample_index = params.sample_index,
                               .round = static_cast<uint32_t>(position)};
    std::vector<uint8_t> scratch(reference::accept_scratch_bytes(1));
    const Accepted want = reference::accept_drafts(args, scratch.data(), cpu::Team{});
    want_accepted.push_back(want.num_accepted);
    want_tokens.push_back(want.token);
    host_rounds.push_back({r, num_drafts, static_cast<int32_t>(token_ids.size()), position, keep(p_masses),
                           keep(p_totals), is_drawn ? keep(q_masses) : nullptr, is_drawn ? keep(q_totals) : nullptr});
    token_ids.insert(token_ids.end(), drafts.begin(), drafts.end());
  }
  const DeviceSlots slots(host_slots, n);
  const Device<int32_t> ids(token_ids), accepted(host_rounds.size()), tokens(host_rounds.size());
  const Device<Round> rounds(host_rounds);
  accept_drafts({.slots = slots.data(),
                 .token_ids = ids.data,
                 .is_block_rule = is_block_rule,
                 .rounds = rounds.data,
                 .num_rounds = num_rounds,
                 .num_ids = n,
                 .num_accepted = accepted.data,
                 .tokens = tokens.data},
                stream);
  expect_same("accepted drafts", accepted.read(), want_accepted);
  expect_same("tokens after drafts", tokens.read(), want_tokens);
}

CUDA_TEST(rule_standard) { run_rounds(false); }
CUDA_TEST(rule_block) { run_rounds(true); }

// A plan may offer an id past the distribution: its p is 0, whatever follows the row in memory.
CUDA_TEST(drafts_past_the_distribution) {
  const int n = any(3, 40), num_drafts = 2;
  std::vector<uint64_t> all_on_first(size_t(n) * (num_drafts + 1), 0);
  for (int j = 0; j <= num_drafts; j++) all_on_first[size_t(j) * n] = kOneMass;
  const DeviceSlots slots(std::vector<Slot>(1), n);
  const Device<uint64_t> masses(all_on_first), totals(std::vector<uint64_t>(num_drafts + 1, kOneMass));
  const Device<int32_t> ids(std::vector<int32_t>{n, 0});
  const Device<Round> rounds(std::vector<Round>{{0, num_drafts, 0, 5, masses.data, totals.data, nullptr, nullptr}});
  for (const bool is_block_rule : {false, true}) {
    const Device<int32_t> accepted(1), tokens(1);
    accept_drafts({.slots = slots.data(),
                   .token_ids = ids.data,
                   .is_block_rule = is_block_rule,
                   .rounds = rounds.data,
                   .num_rounds = 1,
                   .num_ids = n,
                   .num_accepted = accepted.data,
                   .tokens = tokens.data},
                  stream);
    expect_same("accepted drafts", accepted.read(), std::vector<int32_t>{0});
    expect_same("token after drafts", tokens.read(), std::vector<int32_t>{0});
  }
}

}  // namespace
}  // namespace nds::cuda::test
