// Random logits, slots and rows, on the host for the CPU's operators and on the device for those under test. The
// reference is compiled for AVX2: the portable instruction set rounds a multiply-add twice.
#pragma once
#define NDS_ISA_NAMESPACE avx2
#include <limits>
#include <memory>

#include "core/plan/plan_view.h"
#include "cpu/kernels/isa_ops.h"
#include "cuda/sampling.h"
#include "harness.h"
#include "step/process_logits.h"

namespace nds::cuda::test {

namespace reference = cpu::avx2;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

inline bool chance(int percent) { return any(1, 100) <= percent; }

// Some rows have NaN and infinite logits, some have many equal ones.
inline std::vector<float> random_logits(int n) {
  const bool coarse = chance(50), holes = chance(50);
  const float scale = chance(20) ? 0.2f : 4.0f;
  std::vector<float> logits = normals(n, scale);
  for (float& x : logits) {
    if (coarse) x = std::round(x * 2) / 2;
    if (holes && chance(10)) x = chance(50) ? -kInfinity : std::nanf("");
  }
  if (chance(5)) logits[any(0, n - 1)] = kInfinity;
  if (chance(5)) std::fill(logits.begin(), logits.end(), chance(50) ? -kInfinity : std::nanf(""));
  if (chance(5)) std::fill(logits.begin(), logits.end(), 1.5f);
  return logits;
}

inline SlotParams random_params(bool filters) {
  SlotParams p;
  p.temperature = chance(15) ? 0 : chance(10) ? 1e-38f : std::exp(normal());
  p.seed = (uint64_t{engine()} << 32) | engine();
  p.sample_index = static_cast<uint32_t>(any(0, 3));
  if (!filters) return p;
  if (chance(50)) p.top_k = chance(20) ? any(1, 5000) : any(1, 40);
  if (chance(50)) p.top_p = chance(10) ? 1e-6f : chance(20) ? 0.999f : 0.01f * static_cast<float>(any(1, 99));
  if (chance(40)) p.min_p = chance(10) ? 1 : 0.01f * static_cast<float>(any(1, 60));
  return p;
}

inline cpu::SampleParams sample_params(const SlotParams& p, int32_t position, bool is_greedy) {
  if (is_greedy) return {};
  return {.temperature = p.temperature,
          .top_p = p.top_p,
          .min_p = p.min_p,
          .top_k = p.top_k,
          .seed = p.seed,
          .position = static_cast<uint32_t>(position),
          .sample_index = p.sample_index};
}

// Device slots with the lists, histories and counts of host slots.
class DeviceSlots {
 public:
  DeviceSlots(const std::vector<Slot>& slots, int vocab_size) {
    std::vector<DeviceSlot> table;
    for (const Slot& slot : slots) table.push_back(copy(slot, vocab_size));
    table_ = std::make_unique<Device<DeviceSlot>>(table);
  }
  const DeviceSlot* data() const { return table_->data; }

 private:
  template <typename T>
  static T* keep(std::vector<std::unique_ptr<Device<T>>>& all, const std::vector<T>& values) {
    all.push_back(std::make_unique<Device<T>>(values));
    return all.back()->data;
  }
  IdList list(const std::vector<int32_t>& ids) { return {keep(ints_, ids), static_cast<int32_t>(ids.size())}; }

  DeviceSlot copy(const Slot& slot, int vocab_size) {
    const SlotParams& p = slot.params;
    std::vector<int32_t> words, edges{0};
    for (const std::vector<int32_t>& word : p.bad_words) {
      words.insert(words.end(), word.begin(), word.end());
      edges.push_back(static_cast<int32_t>(words.size()));
    }
    DeviceSlot d{};
    d.length = slot.length;
    d.params = {p.temperature,
                p.top_p,
                p.min_p,
                p.presence_penalty,
                p.frequency_penalty,
                p.repetition_penalty,
                p.top_k,
                p.sample_index,
                p.seed,
                p.num_prompt_tokens,
                p.min_tokens,
                p.may_draft,
                p.looks_back(),
                p.keeps_history(),
                list(p.allowed),
                list(p.stops),
                list(p.bias_ids),
                keep(floats_, p.bias_values),
                list(words),
                keep(ints_, edges),
                static_cast<int32_t>(p.bad_words.size())};
    if (p.keeps_history()) {
      d.num_history = static_cast<int32_t>(slot.history.size());
      d.history = keep(ints_, slot.history);
    }
    if (p.looks_back()) {
      std::vector<uint32_t> counts(vocab_size, 0);
      for (int i = 0; i < d.num_history; i++) {
        uint32_t& count = counts[slot.history[i]];
        count = i < p.num_prompt_tokens ? count | kInPrompt : count + 1;
      }
      d.counts = keep(counts_, counts);
    }
    return d;
  }

  std::vector<std::unique_ptr<Device<int32_t>>> ints_;
  std::vector<std::unique_ptr<Device<float>>> floats_;
  std::vector<std::unique_ptr<Device<uint32_t>>> counts_;
  std::unique_ptr<Device<DeviceSlot>> table_;
};

// A row for each slot, of any kind; some are padding.
inline std::vector<LogitRow> random_rows(int num_rows) {
  std::vector<LogitRow> rows(num_rows);
  for (int i = 0; i < num_rows; i++) {
    LogitRow& row = rows[i];
    row.row = chance(10) ? -1 : i;
    row.slot = row.row < 0 && chance(50) ? -1 : i;
    row.kind = chance(10) ? any(1, 2) : 0;
    row.position = any(0, 100000);
  }
  return rows;
}
inline bool samples(const LogitRow& row) { return row.row >= 0 && row.kind == 0; }

}  // namespace nds::cuda::test
