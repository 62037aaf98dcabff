// Tokens, edited logits and log-probabilities: bit for bit those of the CPU's operators.
#include <algorithm>
#include <numeric>

#include "cuda/kernels/sample_noise.h"
#include "sampling_host.h"

namespace nds::cuda::test {
namespace {

// Whole rows of logits [num_rows, ld], and slots with random parameters.
struct Case {
  int num_rows = any(1, 4), n = chance(5) ? 20000 : chance(50) ? any(60, 300) : any(300, 3000), ld = n + any(0, 5);
  bool is_greedy;
  std::vector<Slot> slots;
  std::vector<LogitRow> rows = random_rows(num_rows);
  std::vector<float> logits;

  explicit Case(bool filters) : is_greedy(chance(10)), slots(num_rows) {
    for (Slot& slot : slots) {
      slot.params = random_params(filters && chance(80));
      std::vector<float> row = random_logits(n);
      row.resize(ld, 1e30f);  // padding must not be read
      logits.insert(logits.end(), row.begin(), row.end());
    }
  }
  const float* row(int r) const { return logits.data() + int64_t{r} * ld; }
  cpu::SampleParams params(int r) const { return sample_params(slots[r].params, rows[r].position, is_greedy); }
  bool is_filtered(int r) const { return !is_greedy && slots[r].params.filtered(); }
};

__global__ void __launch_bounds__(128) gumbel_kernel(const float* words, int n, float* noise) {
  const int i = blockIdx.x * 128 + threadIdx.x;
  if (i < n) noise[i] = gumbel(float_to_bits(words[i]));
}

// Includes rare words: the least, the greatest, and those for which 1 - w rounds to 1.
CUDA_TEST(noise_of_words) {
  std::vector<float> words;
  const auto add = [&words](uint32_t word) {
    words.push_back(0);
    std::memcpy(&words.back(), &word, 4);
  };
  for (uint32_t i = 0; i < 300; i++) {
    for (const uint32_t word : {i, 0x7fffffffu - i, 0x80000000u + i, ~i, ~(i << 3), static_cast<uint32_t>(engine())})
      add(word);
  }
  const int n = static_cast<int>(words.size());
  const Device<float> of_words(words), noise(words.size());
  const simt::LaunchShape shape{dim3(static_cast<unsigned>((n + 127) / 128)), dim3(128), 0, stream};
  must(simt::launch(gumbel_kernel, shape, of_words.data, n, noise.data));
  std::vector<float> want(words.size());
  reference::test_map(cpu::LaneFunction::gumbel, words.data(), n, want.data());
  expect_same("noise", noise.read(), want);
}

bool same(const Candidate& a, const cpu::Candidate& b) { return std::memcmp(&a, &b, sizeof(a)) == 0; }

CUDA_TEST(tokens_without_filters) {
  const Case c(true);
  const DeviceSlots slots(c.slots, c.n);
  const Device<LogitRow> rows(c.rows);
  const SamplingBatch batch{
      .rows = rows.data, .num_rows = c.num_rows, .slots = slots.data(), .token_ids = nullptr, .is_greedy = c.is_greedy};
  // Ranks may have any number of ids, also none.
  const int world_size = any(1, 3);
  std::vector<int> edges{0, c.n};
  for (int r = 1; r < world_size; r++) edges.push_back(any(0, c.n));
  std::sort(edges.begin(), edges.end());
  const Device<Candidate> partials(size_t(c.num_rows * kSampleSplits)), candidates(size_t(c.num_rows * world_size));
  bool is_same = true;
  for (int r = 0; r < world_size; r++) {
    const int first = edges[r], num_ids = edges[r + 1] - first, ld = num_ids + any(0, 4);
    std::vector<float> local(size_t(c.num_rows) * ld + 1, 1e30f);
    for (int i = 0; i < c.num_rows; i++) std::copy_n(c.row(i) + first, num_ids, local.data() + i * ld);
    const Device<float> logits(local);
    sample({.batch = batch,
            .logits = logits.data,
            .ld = ld,
            .first_id = first,
            .num_ids = num_ids,
            .partials = partials.data,
            .candidates = candidates.data + r * c.num_rows},
           place(), place());
    const std::vector<Candidate> got = candidates.read();
    for (int i = 0; i < c.num_rows; i++) {
      cpu::Candidate want{-kInfinity, -1};
      if (samples(c.rows[i]) && !c.is_filtered(i))
        want = reference::sample_row(c.row(i) + first, num_ids, first, c.params(i));
      is_same &= same(got[r * c.num_rows + i], want);
    }
  }
  note(is_same, "candidates of ranks");
  const Device<int32_t> tokens(size_t(c.num_rows));
  choose({batch, candidates.data, world_size, tokens.data}, place());
  std::vector<int32_t> want(c.num_rows, -1);
  for (int i = 0; i < c.num_rows; i++) {
    if (samples(c.rows[i]) && !c.is_filtered(i)) want[i] = reference::sample_row(c.row(i), c.n, 0, c.params(i)).id;
  }
  expect_same("tokens", tokens.read(), want);
}

// With so many rows, each has one block, which skips most of its ids.
CUDA_TEST(tokens_of_many_rows) {
  const int num_rows = 1100, n = any(6000, 12000), stride = 250;
  std::vector<Slot> host_slots(num_rows);
  std::vector<LogitRow> host_rows(num_rows);
  std::vector<float> one = normals(n, chance(50) ? 1 : 4);
  std::vector<int32_t> want(num_rows, -1);
  for (int i = 0; i < num_rows; i++) {
    host_rows[i].row = i % stride == 0 ? i : -1;
    host_rows[i].slot = i;
    host_rows[i].position = any(0, 100000);
    host_slots[i].params = random_params(false);
    if (i % stride != 0) continue;
    const cpu::SampleParams params = sample_params(host_slots[i].params, host_rows[i].position, false);
    want[i] = reference::sample_row(one.data(), n, 0, params).id;
  }
  std::vector<DeviceSlot> table(num_rows);
  for (int i = 0; i < num_rows; i++) {
    DeviceParams& p = table[i].params;
    p.temperature = host_slots[i].params.temperature;
    p.top_p = 1;
    p.seed = host_slots[i].params.seed;
    p.sample_index = host_slots[i].params.sample_index;
  }
  const Device<DeviceSlot> slot_table(table);
  const Device<LogitRow> rows(host_rows);
  const Device<float> logits(one);  // every row is the same
  const Device<Candidate> partials(size_t{num_rows} * kSampleSplits), candidates(size_t{num_rows});
  const Device<int32_t> tokens(size_t{num_rows});
  const SamplingBatch batch{
      .rows = rows.data, .num_rows = num_rows, .slots = slot_table.data, .token_ids = nullptr, .is_greedy = false};
  sample({.batch = batch,
          .logits = logits.data,
          .ld = 0,
          .first_id = 0,
          .num_ids = n,
          .partials = partials.data,
          .candidates = candidates.data},
         place(), place());
  choose({batch, candidates.data, 1, tokens.data}, place());
  expect_same("tokens of many rows", tokens.read(), want);
}

CUDA_TEST(tokens_with_filters) {
  const Case c(true);
  const DeviceSlots slots(c.slots, c.n);
  const Device<LogitRow> rows(c.rows);
  const Device<float> logits(c.logits);
  const Device<Candidate> candidates(size_t(c.num_rows));
  const std::vector<Candidate> before = candidates.read();
  const SamplingBatch batch{
      .rows = rows.data, .num_rows = c.num_rows, .slots = slots.data(), .token_ids = nullptr, .is_greedy = c.is_greedy};
  sample_filtered({.batch = batch, .logits = logits.data, .ld = c.ld, .num_ids = c.n, .candidates = candidates.data},
                  stream);
  const std::vector<Candidate> got = candidates.read();
  std::vector<uint8_t> scratch(reference::filter_scratch_bytes(c.n, 1));
  for (int i = 0; i < c.num_rows; i++) {
    if (!samples(c.rows[i]) || !c.is_filtered(i)) {
      note(std::memcmp(&got[i], &before[i], sizeof(Candidate)) == 0, "a row without filters is left alone");
      continue;
    }
    const cpu::Candidate want = reference::sample_filtered_row(c.row(i), c.n, c.params(i), scratch.data(), cpu::Team{});
    const SlotParams& p = c.slots[i].params;
    note(same(got[i], want), "filtered row of " + std::to_string(c.n) + ": k " + std::to_string(p.top_k) + " p " +
                                 std::to_string(p.top_p) + " min " + std::to_string(p.min_p) + " t " +
                                 std::to_string(p.temperature) + ": expected " + std::to_string(want.id) +
                                 " but received " + std::to_string(got[i].id));
  }
}

std::vector<int32_t> some_ids(int n, int most) {
  std::vector<int32_t> ids(n);
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), engine);
  ids.resize(any(1, std::min(n, most)));
  return ids;
}

void add_edits(Slot& slot, int n) {
  SlotParams& p = slot.params;
  if (chance(20)) return;
  if (chance(50)) p.presence_penalty = normal();
  if (chance(50)) p.frequency_penalty = normal();
  if (chance(50)) p.repetition_penalty = std::exp(normal());
  if (chance(30)) p.allowed = some_ids(n, n);
  if (chance(50)) p.stops = some_ids(n, 5);
  if (chance(50)) p.min_tokens = any(0, 12);
  if (chance(50)) p.bias_ids = some_ids(n, n);
  p.bias_values = normals(p.bias_ids.size());
  p.num_prompt_tokens = any(1, 6);
  const int num_history = p.num_prompt_tokens + any(0, 8), num_kinds = any(1, 4);
  for (int i = 0; i < num_history; i++) slot.history.push_back(any(0, num_kinds));
  for (int w = chance(50) ? any(1, 12) : 0; w > 0; w--) {
    std::vector<int32_t> word(any(1, 4));
    for (int32_t& id : word) id = any(0, num_kinds);
    p.bad_words.push_back(word);
  }
  slot.counts = TokenCounts(slot.history, p.num_prompt_tokens);
  if (!p.keeps_history()) slot.history.clear();
}

CUDA_TEST(logits_are_edited) {
  Case c(false);
  if (chance(10)) {  // more than one block per row
    c.n = 5000;
    c.ld = 5001;
    c.logits = normals(size_t(c.num_rows) * c.ld, 3);
  }
  std::vector<int32_t> token_ids{-5};
  for (int i = 0; i < c.num_rows; i++) {
    add_edits(c.slots[i], c.n);
    LogitRow& row = c.rows[i];
    row.first_draft = static_cast<int32_t>(token_ids.size());
    row.num_drafts = chance(50) ? any(1, 6) : 0;
    row.num_before = any(0, row.num_drafts);
    row.num_output = any(0, 12);
    for (int j = 0; j < row.num_drafts; j++) token_ids.push_back(any(0, 5));
  }
  const DeviceSlots slots(c.slots, c.n);
  const Device<LogitRow> rows(c.rows);
  const Device<int32_t> tokens(token_ids);
  const int first = chance(50) ? 0 : any(0, 20), num_ids = any(1, c.n - first);
  std::vector<float> local(c.logits.size(), 7.0f);
  for (int i = 0; i < c.num_rows; i++) std::copy_n(c.row(i) + first, num_ids, local.data() + i * c.ld);
  const bool in_place = chance(30);
  const Device<float> logits(local), edited(local.size());
  const std::vector<float> before = in_place ? local : edited.read();
  std::vector<float> want = before;
  for (int i = 0; i < c.num_rows; i++) {
    const LogitRow& row = c.rows[i];
    if (!samples(row)) continue;
    nds::process_logits(local.data() + i * c.ld, first, num_ids, c.slots[i],
                        {token_ids.data() + row.first_draft, row.num_before}, row.num_output, want.data() + i * c.ld);
  }
  process_logits({.batch = {.rows = rows.data,
                            .num_rows = c.num_rows,
                            .slots = slots.data(),
                            .token_ids = tokens.data,
                            .is_greedy = c.is_greedy},
                  .logits = logits.data,
                  .edited = in_place ? logits.data : edited.data,
                  .ld = c.ld,
                  .first_id = first,
                  .num_ids = num_ids},
                 stream);
  std::vector<float> got = in_place ? logits.read() : edited.read();
  // Which NaN an operation on NaN gives depends on the processor.
  for (int i = 0; i < c.num_rows; i++) {
    for (int64_t at = int64_t{i} * c.ld; samples(c.rows[i]) && at < int64_t{i} * c.ld + num_ids; at++)
      if (std::isnan(got[at]) && std::isnan(want[at])) got[at] = want[at];
  }
  expect_same("edited logits", got, want);
}

// None, few, as many as are placed by comparison, more, or all that can be drawn.
int random_num_likeliest(int num_drawable) {
  const int counts[] = {-1, any(0, 20), 1, 64, 65, 200, num_drawable};
  return std::min(counts[any(0, 6)], num_drawable);
}

CUDA_TEST(log_probabilities_of_rows) {
  Case c(false);
  const int num_drawable = chance(50) ? c.n : any(c.n / 2 + 1, c.n);
  std::vector<int32_t> tokens(c.num_rows), cu_entries{0};
  for (int i = 0; i < c.num_rows; i++) {
    tokens[i] = any(0, c.n - 1);
    c.rows[i].target = any(0, c.n - 1);
    cu_entries.push_back(cu_entries.back() + 1 + random_num_likeliest(num_drawable));
  }
  const DeviceSlots slots(c.slots, c.n);
  const Device<LogitRow> rows(c.rows);
  const Device<float> logits(c.logits);
  const Device<int32_t> of_rows(tokens), edges(cu_entries), ids(size_t(cu_entries.back())), ranks(size_t(c.num_rows));
  const Device<float> logprobs(size_t(cu_entries.back()));
  std::vector<int32_t> want_ids = ids.read(), want_ranks = ranks.read();
  std::vector<float> want_logprobs = logprobs.read();
  for (int i = 0; i < c.num_rows; i++) {
    const LogitRow& row = c.rows[i];
    const int first = cu_entries[i], count = cu_entries[i + 1] - first - 1;
    if (row.row < 0 || count < 0) continue;
    want_ranks[i] = reference::log_probabilities({.logits = c.row(i),
                                                  .vocab_size = c.n,
                                                  .num_drawable = num_drawable,
                                                  .token = row.kind == 0 ? tokens[i] : row.target,
                                                  .num_likeliest = count,
                                                  .ids = want_ids.data() + first,
                                                  .logprobs = want_logprobs.data() + first});
  }
  log_probabilities({.batch = {.rows = rows.data,
                               .num_rows = c.num_rows,
                               .slots = slots.data(),
                               .token_ids = nullptr,
                               .is_greedy = c.is_greedy},
                     .logits = logits.data,
                     .ld = c.ld,
                     .vocab_size = c.n,
                     .num_drawable = num_drawable,
                     .tokens = of_rows.data,
                     .cu_entries = edges.data,
                     .ids = ids.data,
                     .logprobs = logprobs.data,
                     .ranks = ranks.data},
                    stream);
  expect_same("likeliest ids", ids.read(), want_ids);
  expect_same("log-probabilities", logprobs.read(), want_logprobs);
  expect_same("ranks", ranks.read(), want_ranks);
}

}  // namespace
}  // namespace nds::cuda::test
