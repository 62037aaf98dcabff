// Paged causal attention. Prefill, chunked prefill and decode differ only in the number of query rows.
//
// A query row visits its keys in runs of 32 by ascending position, with an online softmax per run. Its scores, maxima,
// rescaling and sums depend on that row alone, so which rows share a tile changes no bit.
#include <type_traits>

#include "cpu/kernels/activation.h"
#include "cpu/kernels/attention_tile.h"
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/kv_int8.h"
#include "cpu/kernels/kv_panel.h"
#include "cpu/kernels/simd.h"
#if NDS_AMX
#include "cpu/kernels/attention_amx.h"
#endif

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

// Max query rows of a tile, which share each run while it is in L1.
constexpr int kTileRows = NDS_AMX ? 32 : 24;

// A tile: query tokens [begin, end) of a sequence, for heads of this rank that share one KV head.
struct TileWork {
  int seq;
  int kv_head;
  int first_head, num_heads;  // on this rank
  int begin, end;
};

// Bytes of a run's K and V panels expanded to the dtype of the activations; 0 for a cache of that dtype.
int64_t expanded_bytes(const KvView& kv) {
  if (kv.kv_dtype == KvDtype::activation) return 0;
  return int64_t{2} * kRun * kv.padded_head_dim * (kv.dtype == DType::bf16 ? 2 : 4);
}

// Bytes of a copy of the tile's queries; 0 where they are read in place.
#if NDS_AMX
int64_t query_bytes(const KvView& kv) { return kv.dtype == DType::bf16 ? kTileRows * amx_query_bytes(kv.head_dim) : 0; }
#else
int64_t query_bytes(const KvView&) { return 0; }
#endif

class Tile {
 public:
  // scratch: [attention_scratch_bytes(kv)].
  Tile(const AttentionArgs& args, uint8_t* scratch) : args_(args), width_(args.kv.padded_head_dim) {
    out_ = reinterpret_cast<float*>(scratch);
    scores_[0] = out_ + int64_t{kTileRows} * width_;
    scores_[1] = scores_[0] + kTileRows * kRun;
    sums_ = scores_[1] + kTileRows * kRun;
    panels_[0] = reinterpret_cast<uint8_t*>(sums_ + kTileRows * 16);
    panels_[1] = panels_[0] + expanded_bytes(args.kv) / 2;
    queries_ = panels_[0] + expanded_bytes(args.kv);
  }

  // following: what this thread visits next, or null: its first run is prefetched, so that short contexts begin warm.
  template <typename Kv>
  void run(const TileWork& work, const TileWork* following) {
    set_up(work);
    following_ = following == nullptr ? args_.kv.base : first_run(*following).base;
    const int num_groups = (num_rows_ + kMaxTileRows - 1) / kMaxTileRows;
    // bf16 beside fp32 rows is expanded where several groups read it. That changes no bit.
    const KvDtype kv_dtype = args_.kv.kv_dtype;
    is_expanded_ = kv_dtype == KvDtype::int8 || (kv_dtype == KvDtype::bf16 && num_groups > 1);
    if (is_expanded_) {
      visit_runs<typename Kv::Expanded>(work, num_groups);
    } else {
      visit_runs<Kv>(work, num_groups);
    }
    finish(work);
  }

 private:
  static constexpr int64_t kNoRun = -1;

  // 32 keys: their K panel, then their V panel, then the scales of an int8 cache.
  struct Run {
    const uint8_t* base;
    int64_t begin;  // first key
  };

  template <typename Kv>
  void visit_runs(const TileWork& work, int num_groups) {
    // Scores are computed one run ahead: their multiply-adds fill the units that the latency-bound exp of the previous
    // run leaves idle.
    Run now{following_, kNoRun}, next = first_run(work);
    while (now.begin != kNoRun || next.begin != kNoRun) {
      const Run after = next.begin == kNoRun ? next : run_at(work, next.begin + kRun);
      if (is_expanded_) expand_panels<Kv::kPerStep>(now, next, after);
#if NDS_AMX
      if constexpr (std::is_same_v<Kv, DotKv>) {
        if (num_rows_ <= kAmxRows) {
          visit_by_amx<1>(now, next, after);
        } else {
          visit_by_amx<2>(now, next, after);
        }
        now = next;
        next = after;
        continue;
      }
#endif
      // Groups of nearly equal size.
      for (int i = 0; i < num_groups; i++) {
        visit_group<Kv>(num_rows_ * i / num_groups, num_rows_ * (i + 1) / num_groups, now, next, after);
      }
      now = next;
      next = after;
    }
  }

  // The first run that some row of the tile sees.
  Run first_run(const TileWork& work) const {
    return locate(work, oldest_key(position_of(work.seq, work.begin)) / kRun * kRun);
  }

  // The run from `begin` on; past the last, no run, at the address to prefetch instead.
  Run run_at(const TileWork& work, int64_t begin) const {
    return begin > positions_[num_rows_ - 1] ? Run{following_, kNoRun} : locate(work, begin);
  }

  Run locate(const TileWork& work, int64_t begin) const {
    const KvView& kv = args_.kv;
    const int64_t block = args_.block_tables[args_.first_blocks[work.seq] + begin / kv.block_size];
    const uint8_t* tile = kv.base + block * kv.block_stride + work.kv_head * kv.tile_bytes;
    return {tile + begin % kv.block_size / kRun * kv.run_bytes, begin};
  }

  // Of new token `token` of a sequence.
  int64_t position_of(int seq, int token) const {
    return args_.context_lens[seq] - (args_.cu_query_lens[seq + 1] - args_.cu_query_lens[seq]) + token;
  }
  int64_t oldest_key(int64_t position) const {
    const int64_t oldest = position + 1 - args_.sliding_window;
    return args_.sliding_window > 0 && oldest > 0 ? oldest : 0;
  }

  const uint8_t* values_of(const Run& run) const { return run.base + args_.kv.panel_bytes; }

  // Expands panels once for all rows of the tile: K of `next`, V of `now`.
  template <int kRowsPerStep>
  void expand_panels(const Run& now, const Run& next, const Run& after) {
    if (args_.kv.kv_dtype == KvDtype::bf16) {
      if (next.begin != kNoRun) expand_bf16(next.base, args_.kv.head_dim, kRun, panels_[0]);
      if (now.begin != kNoRun) expand_bf16(values_of(now), kRun, width_, panels_[1]);
      return;
    }
    for (int i = 0; i < 4; i++) prefetch_l2(int8_scales(args_.kv, after.base) + i * 16);
    if (next.begin != kNoRun) expand_int8<kRowsPerStep>(next.base, args_.kv.head_dim, kRun, panels_[0]);
    if (now.begin != kNoRun) expand_int8<kRowsPerStep>(values_of(now), kRun, width_, panels_[1]);
  }

  // Scores [rows][32] of a run, from `row` on; its probabilities replace them.
  float* scores_of(const Run& run, int row) const { return scores_[run.begin / kRun % 2] + row * kRun; }

  void set_up(const TileWork& work) {
    const KvView& kv = args_.kv;
    const int64_t size = kv.dtype == DType::bf16 ? 2 : 4;
    const int first_token = args_.cu_query_lens[work.seq];
    num_rows_ = 0;
    for (int token = work.begin; token < work.end; token++) {
      const uint8_t* q = static_cast<const uint8_t*>(args_.q) + (first_token + token) * args_.ldq * size;
      const int64_t position = position_of(work.seq, token);
      for (int h = work.first_head; h < work.first_head + work.num_heads; h++, num_rows_++) {
        q_[num_rows_] = q + int64_t{h} * kv.head_dim * size;
        positions_[num_rows_] = position;
        first_keys_[num_rows_] = oldest_key(position);
        maxima_[num_rows_] = -__builtin_inff();
      }
    }
    std::memset(out_, 0, static_cast<size_t>(num_rows_) * width_ * 4);
    std::memset(sums_, 0, static_cast<size_t>(num_rows_) * 64);
#if NDS_AMX
    if (query_bytes(kv) > 0) copy_queries();
#endif
  }

#if NDS_AMX
  void copy_queries() {
    amx_.set(num_rows_);
    const int64_t row_bytes = amx_query_bytes(args_.kv.head_dim);
    std::memset(queries_, 0, static_cast<size_t>(num_rows_ * row_bytes));
    for (int r = 0; r < num_rows_; r++) {
      std::memcpy(queries_ + r * row_bytes, q_[r], static_cast<size_t>(args_.kv.head_dim) * 2);
    }
  }

  // The tile multiplies the next run's keys while the scores of this one become probabilities.
  template <int B>
  void visit_by_amx(const Run& now, const Run& next, const Run& after) {
    const int64_t ahead_bytes = args_.kv.panel_bytes;
    if (active_rows(0, num_rows_, next) != 0) {
      for (int64_t i = 0; i < ahead_bytes; i += 64) prefetch_l2(after.base + i);
      amx_score_rows<B>(is_expanded_ ? panels_[0] : next.base, queries_, args_.kv.head_dim, scores_of(next, 0));
    }
    const uint32_t active = active_rows(0, num_rows_, now);
    if (active == 0) return;
    for (int row = 0; row < num_rows_; row += kMaxTileRows) softmax_group(row, active >> row, now);
    for (int64_t i = 0; i < ahead_bytes; i += 64) prefetch_l2(values_of(next) + i);
    const OutRows out{out_, width_, factors_, active};
    amx_add_values<B>(is_expanded_ ? panels_[1] : values_of(now), width_,
                      reinterpret_cast<const uint8_t*>(scores_of(now, 0)), out, num_rows_);
  }

  // Of up to kMaxTileRows rows from first_row on.
  void softmax_group(int first_row, uint32_t active, const Run& run) {
    switch (num_rows_ - first_row) {
      case 1:
        return softmax_rows<1>(first_row, active, run);
      case 2:
        return softmax_rows<2>(first_row, active, run);
      case 3:
        return softmax_rows<3>(first_row, active, run);
      case 4:
        return softmax_rows<4>(first_row, active, run);
      case 5:
        return softmax_rows<5>(first_row, active, run);
      default:
        return softmax_rows<6>(first_row, active, run);
    }
  }
#endif

  // Rows [begin, end) of the tile.
  template <typename Kv>
  void visit_group(int begin, int end, const Run& now, const Run& next, const Run& after) {
    switch (end - begin) {
      case 1:
        return visit_rows<Kv, 1>(begin, now, next, after);
#if NDS_AVX512 || NDS_AVX2 || NDS_NEON
      case 2:
        return visit_rows<Kv, 2>(begin, now, next, after);
#endif
#if NDS_AVX512 || NDS_AVX2
      case 3:
        return visit_rows<Kv, 3>(begin, now, next, after);
#endif
#if NDS_AVX512
      case 4:
        return visit_rows<Kv, 4>(begin, now, next, after);
      case 5:
        return visit_rows<Kv, 5>(begin, now, next, after);
      case 6:
        return visit_rows<Kv, 6>(begin, now, next, after);
#endif
    }
  }

  // Bit r: row first_row + r sees some key of the run.
  uint32_t active_rows(int first_row, int count, const Run& run) const {
    uint32_t active = 0;
    for (int r = 0; r < count && run.begin != kNoRun; r++) {
      const bool sees = run.begin <= positions_[first_row + r] && run.begin + kRun > first_keys_[first_row + r];
      active |= (sees ? 1u : 0u) << r;
    }
    return active;
  }

  template <typename Kv, int R>
  void visit_rows(int first_row, const Run& now, const Run& next, const Run& after) {
    // Bytes of the panels that are read ÷ of those stored, as a power of 2.
    const int shift = !is_expanded_ ? 0 : args_.kv.kv_dtype == KvDtype::bf16 || Kv::kPerStep == 2 ? 1 : 2;
    const uint32_t active = active_rows(first_row, R, now);
    if (active != 0) softmax_rows<R>(first_row, active, now);
    if (active_rows(first_row, R, next) != 0) {
      const uint8_t* keys = is_expanded_ ? panels_[0] : next.base;
      score_rows<Kv, R>(keys, q_ + first_row, args_.kv.head_dim, scores_of(next, first_row), {after.base, shift});
    }
    if (active != 0) {
      const uint8_t* values = is_expanded_ ? panels_[1] : values_of(now);
      const OutRows out{out_ + int64_t{first_row} * width_, width_, factors_ + first_row, active};
      const uint8_t* p = reinterpret_cast<const uint8_t*>(scores_of(now, first_row));
      add_values<Kv, R>(values, width_, p, out, {values_of(next), shift});
    }
  }

  // 32 scores or probabilities.
  struct RunOfRow {
    F32x16 low, high;
  };

  // Online softmax of one run of the active ones of R rows: scales, masks, exponentiates and sums their scores, and
  // sets the factors that rescale earlier output to the new maxima. One exp makes the factors of all rows, without a
  // branch on the scores.
  template <int R>
  void softmax_rows(int first_row, uint32_t active, const Run& run) {
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
    store(factors_ + first_row, select(rises, exp(old_maxima - run_maxima), set1(1.0f)));
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      if ((active >> r & 1) != 0) exponentiate(first_row + r, scores[r], run);
    }
  }

  // The scores of a row over a run, scaled and masked.
  RunOfRow load_scores(int row, const Run& run) const {
    const float* scores = scores_of(run, row);
    const F32x16 scale = set1(args_.scale);
    RunOfRow s{load(scores) * scale, load(scores + 16) * scale};
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
  void exponentiate(int row, const RunOfRow& s, const Run& run) {
    const F32x16 maximum = set1(maxima_[row]);
    F32x16 p0 = exp(s.low - maximum), p1 = exp(s.high - maximum);
    float* sums = sums_ + row * 16;
    store(sums, load(sums) * set1(factors_[row]) + (p0 + p1));
    if (args_.kv.kv_dtype == KvDtype::int8) {
      const float* scales = int8_scales(args_.kv, run.base) + kRun;
      p0 = p0 * load(scales);
      p1 = p1 * load(scales + 16);
    }
    float* probabilities = scores_of(run, row);
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

  void finish(const TileWork& work) {
    const KvView& kv = args_.kv;
    const int first_token = args_.cu_query_lens[work.seq];
    int row = 0;
    for (int token = work.begin; token < work.end; token++) {
      uint8_t* out = activation_row(args_.out, args_.ld_out, first_token + token, kv.dtype);
      for (int h = work.first_head; h < work.first_head + work.num_heads; h++, row++) {
        const F32x16 sum = set1(reduce_add(load(sums_ + row * 16)));
        for (int d = 0; d < kv.head_dim; d += 16) {
          const F32x16 value = load(out_ + int64_t{row} * width_ + d) / sum;
          store_activation(out, int64_t{h} * kv.head_dim + d, value, lanes(kv.head_dim, d), kv.dtype);
        }
      }
      if (work.first_head + work.num_heads == args_.num_heads) {
        zero_padding(out, int64_t{args_.num_heads} * kv.head_dim, args_.ld_out, kv.dtype);
      }
    }
  }

  const AttentionArgs& args_;
  const int width_;
  float* out_;          // [rows][width_]
  float* scores_[2];    // [rows][32] of even and of odd runs
  float* sums_;         // [rows][16 lanes] of probabilities
  uint8_t* panels_[2];  // K and V panels, where is_expanded_
  bool is_expanded_ = false;
  uint8_t* queries_;  // [rows] of amx_query_bytes
#if NDS_AMX
  AmxState amx_;
#endif
  int num_rows_ = 0;
  // A row is a query token of one head.
  const uint8_t* q_[kTileRows];
  int64_t positions_[kTileRows];
  int64_t first_keys_[kTileRows];  // oldest key that the row sees; 0 without a window
  // With room for 16 lanes from the last row on.
  float maxima_[kTileRows + 16];
  float factors_[kTileRows + 16];
  const uint8_t* following_ = nullptr;  // first run of the next tile
};

template <typename Kv>
void attend(const AttentionArgs& args, int tid, int num_threads) {
  Tile tile(args, args.scratch + tid * attention_scratch_bytes(args.kv));
  const int shared = args.group_size < kTileRows ? args.group_size : kTileRows;
  const int tokens_per_tile = kTileRows / shared;
  int64_t unit = 0;
  TileWork tiles[2];  // this thread's newest two
  int num_tiles = 0;
  // Heads are the inner loop: adjacent units cost the same, so dealing them round-robin balances the threads.
  for (int seq = 0; seq < args.num_seqs; seq++) {
    const int num_queries = args.cu_query_lens[seq + 1] - args.cu_query_lens[seq];
    for (int begin = 0; begin < num_queries; begin += tokens_per_tile) {
      const int end = begin + tokens_per_tile < num_queries ? begin + tokens_per_tile : num_queries;
      for (int head = 0; head < args.num_heads;) {
        // Heads of this rank that share the KV head of `head`, max kTileRows of them.
        const int kv_head = (args.first_head + head) / args.group_size;
        int next = (kv_head + 1) * args.group_size - args.first_head;
        if (next > args.num_heads) next = args.num_heads;
        if (next > head + kTileRows) next = head + kTileRows;
        if (unit++ % num_threads == tid) {
          const TileWork& newest =
              tiles[num_tiles % 2] = {seq, kv_head - args.first_kv_head, head, next - head, begin, end};
          if (num_tiles++ > 0) tile.run<Kv>(tiles[num_tiles % 2], &newest);
        }
        head = next;
      }
    }
  }
  if (num_tiles > 0) tile.run<Kv>(tiles[(num_tiles - 1) % 2], nullptr);
}

}  // namespace

int64_t attention_scratch_bytes(const KvView& kv) {
  return int64_t{kTileRows} * (kv.padded_head_dim + 2 * kRun + 16) * 4 + expanded_bytes(kv) + query_bytes(kv);
}

void paged_attention(const AttentionArgs& args, int tid, int num_threads) {
  if (args.kv.kv_dtype == KvDtype::bf16) return attend<MixedKv>(args, tid, num_threads);
  if (args.kv.dtype == DType::f32) return attend<F32Kv>(args, tid, num_threads);
#if NDS_BF16_DOT
  attend<DotKv>(args, tid, num_threads);
#else
  attend<PairKv>(args, tid, num_threads);
#endif
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
