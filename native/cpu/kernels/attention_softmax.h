// The rows of a tile of attention: the keys that each sees, its scores of two runs, and its online softmax.
#pragma once
#include <cstdint>
#include <cstring>

#include "cpu/kernels.h"
#include "cpu/kernels/kv_int8.h"
#include "cpu/kernels/simd.h"
#include "cpu/kv_view.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Max query rows of a tile, which share each run while it is in L1.
constexpr int kTileRows = NDS_AMX ? 32 : 24;

constexpr int64_t kNoRun = -1;

// 32 keys: their K panel, then their V panel, then the scales of an int8 cache.
struct Run {
  const uint8_t* base;
  int64_t begin;  // first key; kNoRun: none
};

// A row is a query token of one head.
class SoftmaxRows {
 public:
  static constexpr int kFloatsPerRow = 2 * kRun + 16;

  // scratch: [kTileRows * kFloatsPerRow].
  SoftmaxRows(const AttentionArgs& args, float* scratch)
      : args_(args), scores_{scratch, scratch + kTileRows * kRun}, sums_(scratch + 2 * kTileRows * kRun) {}

  void clear() { count_ = 0; }

  // A row that sees the keys from first_key to position. Positions ascend.
  void add(int64_t position, int64_t first_key) {
    positions_[count_] = position;
    first_keys_[count_] = first_key;
    maxima_[count_] = -__builtin_inff();
    store(sums_ + count_ * 16, zero());
    count_++;
  }

  int count() const { return count_; }

  // Bit r: row first_row + r sees some key of the run.
  uint32_t active(int first_row, int count, const Run& run) const {
    uint32_t active = 0;
    for (int r = 0; r < count && run.begin != kNoRun; r++) {
      const bool sees = run.begin <= positions_[first_row + r] && run.begin + kRun > first_keys_[first_row + r];
      active |= (sees ? 1u : 0u) << r;
    }
    return active;
  }

  // Scores [rows][32] of a run, from `row` on; its probabilities replace them.
  float* scores(const Run& run, int row) const { return scores_[run.begin / kRun % 2] + row * kRun; }

  // [rows] that rescale earlier output to the maxima of the run visited last, from `row` on.
  const float* factors(int row) const { return factors_ + row; }

  // Of the probabilities of a row.
  float sum(int row) const { return reduce_add(load(sums_ + row * 16)); }

  // Online softmax of one run of the active ones of R rows: scales, masks, exponentiates and sums their scores, and
  // sets the factors that rescale earlier output to the new maxima. One exp makes the factors of all rows, without a
  // branch on the scores.
  template <int R>
  void softmax(int first_row, uint32_t active, const Run& run) {
    RunOfRow scores[R];
    F32x16 run_maxima = set1(-__builtin_inff());  // lane r: of row first_row + r; -inf leaves a row as it is
#pragma GCC unroll 8
    for (int r = R - 1; r >= 0; r--) {
      scores[r] = load_scores(first_row + r, run);
      const bool is_active = (active >> r & 1) != 0;
      const float most = is_active ? reduce_max(max(scores[r].low, scores[r].high)) : -__builtin_inff();
      run_maxima = select(first_n(r + 1), set1(most), run_maxima);
    }
    const F32x16 old_maxima = load(maxima_ + first_row);
    const Mask16 rises = lt(old_maxima, run_maxima);
    store(maxima_ + first_row, select(rises, run_maxima, old_maxima));
    store(factors_ + first_row, select(rises, exp_of_negative(old_maxima - run_maxima), set1(1.0f)));
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      if ((active >> r & 1) != 0) exponentiate(first_row + r, scores[r], run);
    }
  }

 private:
  // 32 scores or probabilities.
  struct RunOfRow {
    F32x16 low, high;
  };

  // The scores of a row over a run, scaled and masked. This and `exponentiate` are inlined, since their calls for each
  // row cost 3 % of attention on AMX.
  [[gnu::always_inline]] RunOfRow load_scores(int row, const Run& run) const {
    const float* row_scores = scores(run, row);
    const F32x16 scale = set1(args_.scale);
    RunOfRow s{load(row_scores) * scale, load(row_scores + 16) * scale};
    if (args_.kv.kv_dtype == KvDtype::int8) {
      const float* scales = int8_scales(args_.kv, run.base);
      s = {s.low * load(scales), s.high * load(scales + 16)};
    }
    if (run.begin + kRun - 1 > positions_[row] || run.begin < first_keys_[row]) {
      s = {mask_scores(s.low, row, run.begin), mask_scores(s.high, row, run.begin + 16)};
    }
    return s;
  }

  // The probabilities, times the V scales of an int8 cache, replace the scores in the dtype that the V product reads.
  [[gnu::always_inline]] void exponentiate(int row, const RunOfRow& s, const Run& run) {
    const F32x16 maximum = set1(maxima_[row]);
    F32x16 p0 = exp_of_negative(s.low - maximum), p1 = exp_of_negative(s.high - maximum);
    float* sums = sums_ + row * 16;
    store(sums, load(sums) * set1(factors_[row]) + (p0 + p1));
    if (args_.kv.kv_dtype == KvDtype::int8) {
      const float* scales = int8_scales(args_.kv, run.base) + kRun;
      p0 = p0 * load(scales);
      p1 = p1 * load(scales + 16);
    }
    float* probabilities = scores(run, row);
    if (args_.kv.dtype == DType::bf16) {
      store_bf16(reinterpret_cast<uint16_t*>(probabilities), p0);
      store_bf16(reinterpret_cast<uint16_t*>(probabilities) + 16, p1);
    } else {
      store(probabilities, p0);
      store(probabilities + 16, p1);
    }
  }

  // Scores of 16 keys from first_key on, -inf for those that the row does not see.
  F32x16 mask_scores(F32x16 scores, int row, int64_t first_key) const {
    const F32x16 hidden = set1(-__builtin_inff());
    const Mask16 not_after = first_n(clamp_lanes(positions_[row] + 1 - first_key));
    const Mask16 before = first_n(clamp_lanes(first_keys_[row] - first_key));
    return select(before, hidden, select(not_after, scores, hidden));
  }
  static int clamp_lanes(int64_t count) { return count < 0 ? 0 : count > 16 ? 16 : static_cast<int>(count); }

  const AttentionArgs& args_;
  float* const scores_[2];  // [rows][32] of even and of odd runs
  float* const sums_;       // [rows][16 lanes] of probabilities
  int count_ = 0;
  int64_t positions_[kTileRows];
  int64_t first_keys_[kTileRows];  // oldest key that the row sees; 0 without a window
  // With room for 16 lanes from the last row on.
  float maxima_[kTileRows + 16];
  float factors_[kTileRows + 16];
};

// A step of a tile: scores of `next`, one run ahead, and the values of `now`.
struct Visit {
  Run now, next;
  const uint8_t* keys;          // panel of `next` to multiply
  const uint8_t* values;        // panel of `now` to multiply
  const uint8_t* keys_ahead;    // stored keys to prefetch while those of `next` are multiplied
  const uint8_t* values_ahead;  // and stored values while those of `now` are
};

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
