// Every id of a row takes part in a draw, whichever block of the row it falls to.
#include "sampling_host.h"

namespace nds::cuda::test {

CUDA_TEST(tokens_at_edges) {
  const int n = any(2100, 6000), first = any(0, 7), ld = n + any(0, 4);
  // The first and last ids of a row, and those on both sides of every possible edge: multiples of four.
  std::vector<int> winners{0, 1, n - 2, n - 1};
  for (int i = 0; i < 4; i++) winners.push_back(any(0, n / 4 - 1) * 4 + 3 * any(0, 1));
  const int num_rows = static_cast<int>(winners.size());
  std::vector<float> logits(static_cast<size_t>(num_rows) * ld, 1e30f);  // padding must not be read
  std::vector<Slot> host_slots(num_rows);
  std::vector<LogitRow> host_rows(num_rows);
  std::vector<int32_t> want(num_rows);
  for (int r = 0; r < num_rows; r++) {
    std::vector<float> row = normals(n);
    row[winners[r]] = 60;  // no noise lifts another so far
    std::copy(row.begin(), row.end(), logits.begin() + int64_t{r} * ld);
    host_slots[r].params.temperature = static_cast<float>(r % 2);
    host_rows[r].row = host_rows[r].slot = r;
    host_rows[r].position = any(0, 1000);
    want[r] = first + winners[r];
  }
  const DeviceSlots slots(host_slots, first + n);
  const Device<LogitRow> rows(host_rows);
  const Device<float> device_logits(logits);
  const Device<Candidate> partials(size_t(num_rows * kSampleSplits)), candidates(static_cast<size_t>(num_rows));
  const SamplingBatch batch{
      .rows = rows.data, .num_rows = num_rows, .slots = slots.data(), .token_ids = nullptr, .is_greedy = false};
  sample({.batch = batch,
          .logits = device_logits.data,
          .ld = ld,
          .first_id = first,
          .num_ids = n,
          .partials = partials.data,
          .candidates = candidates.data},
         place(), place());
  std::vector<int32_t> got;
  for (const Candidate& candidate : candidates.read()) got.push_back(candidate.id);
  expect_same("tokens at edges", got, want);
}

}  // namespace nds::cuda::test
