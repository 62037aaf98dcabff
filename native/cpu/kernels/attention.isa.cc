// Paged causal attention. Prefill, chunked prefill and decode differ only in the number of query rows.
//
// A query row visits its keys in runs of 32 by ascending position, with an online softmax per run. Its scores, maxima,
// rescaling and sums depend on that row alone, so which rows share a tile changes no bit.
#include "cpu/kernels/activation.h"
#include "cpu/kernels/attention_tile.h"
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/kv_int8.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

// Max query rows of a tile, which share each run while it is in L1.
constexpr int kTileRows = 24;

// A tile: query tokens [begin, end) of a sequence, for heads of this rank that share one KV head.
struct TileWork {
  int seq;
  int kv_head;
  int first_head, num_heads;  // on this rank
  int begin, end;
};

// Bytes of a run's K and V panels expanded from int8 to the dtype of the activations; 0 for other caches.
int64_t expanded_bytes(const KvView& kv) {
  return kv.kv_dtype == KvDtype::int8 ? int64_t{2} * kRun * kv.padded_head_dim * (kv.dtype == DType::bf16 ? 2 : 4) : 0;
}

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
  }

  template <typename Kv>
  void run(const TileWork& work) {
    set_up(work);
    // Groups of nearly equal size.
    const int num_groups = (num_rows_ + kMaxTileRows - 1) / kMaxTileRows;
    // Scores are computed one run ahead: their multiply-adds fill the units that the latency-bound exp of the previous
    // run leaves idle.
    Run now{args_.kv.base, kNoRun}, next = run_at(work, first_keys_[0] / kRun * kRun);
    while (now.begin != kNoRun || next.begin != kNoRun) {
      const Run after = next.begin == kNoRun ? next : run_at(work, next.begin + kRun);
      if (args_.kv.kv_dtype == KvDtype::int8) expand_panels<Kv::kPerStep>(now, next, after);
      for (int i = 0; i < num_groups; i++) {
        visit_group<Kv>(num_rows_ * i / num_groups, num_rows_ * (i + 1) / num_groups, now, next, after);
      }
      now = next;
      next = after;
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

  Run run_at(const TileWork& work, int64_t begin) const {
    const KvView& kv = args_.kv;
    if (begin > positions_[num_rows_ - 1]) return {kv.base, kNoRun};
    const int64_t block = args_.block_tables[args_.first_blocks[work.seq] + begin / kv.block_size];
    const uint8_t* tile = kv.base + block * kv.block_stride + work.kv_head * kv.tile_bytes;
    return {tile + begin % kv.block_size / kRun * kv.run_bytes, begin};
  }

  const uint8_t* values_of(const Run& run) const { return run.base + args_.kv.panel_bytes; }

  // Expands int8 panels once for all rows of the tile: K of `next`, V of `now`.
  template <int kRowsPerStep>
  void expand_panels(const Run& now, const Run& next, const Run& after) {
    for (int i = 0; i < 4; i++) prefetch(int8_scales(args_.kv, after.base) + i * 16);
    if (next.begin != kNoRun) expand_int8<kRowsPerStep>(next.base, args_.kv.head_dim, kRun, panels_[0]);
    if (now.begin != kNoRun) expand_int8<kRowsPerStep>(values_of(now), kRun, width_, panels_[1]);
  }

  // Scores [rows][32] of a run, from `row` on; its probabilities replace them.
  float* scores_of(const Run& run, int row) const { return scores_[run.begin / kRun % 2] + row * kRun; }

  void set_up(const TileWork& work) {
    const KvView& kv = args_.kv;
    const int64_t size = kv.dtype == DType::bf16 ? 2 : 4;
    const int first_token = args_.cu_query_lens[work.seq];
    const int num_queries = args_.cu_query_lens[work.seq + 1] - first_token;
    const int64_t num_cached = args_.context_lens[work.seq] - num_queries;
    num_rows_ = 0;
    for (int token = work.begin; token < work.end; token++) {
      const uint8_t* q = static_cast<const uint8_t*>(args_.q) + (first_token + token) * args_.ldq * size;
      const int64_t position = num_cached + token, oldest = position + 1 - args_.sliding_window;
      for (int h = work.first_head; h < work.first_head + work.num_heads; h++, num_rows_++) {
        q_[num_rows_] = q + int64_t{h} * kv.head_dim * size;
        positions_[num_rows_] = position;
        first_keys_[num_rows_] = args_.sliding_window > 0 && oldest > 0 ? oldest : 0;
        maxima_[num_rows_] = -__builtin_inff();
      }
    }
    std::memset(out_, 0, static_cast<size_t>(num_rows_) * width_ * 4);
    std::memset(sums_, 0, static_cast<size_t>(num_rows_) * 64);
  }

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
    const bool is_int8 = args_.kv.kv_dtype == KvDtype::int8;
    const int shift = is_int8 ? (Kv::kPerStep == 2 ? 1 : 2) : 0;
    const uint32_t active = active_rows(first_row, R, now);
    for (int r = 0; r < R; r++) {
      if ((active >> r & 1) != 0) softmax_run(first_row + r, now);
    }
    if (active_rows(first_row, R, next) != 0) {
      const uint8_t* keys = is_int8 ? panels_[0] : next.base;
      score_rows<Kv, R>(keys, q_ + first_row, args_.kv.head_dim, scores_of(next, first_row), {after.base, shift});
    }
    if (active != 0) {
      const uint8_t* values = is_int8 ? panels_[1] : values_of(now);
      const OutRows out{out_ + int64_t{first_row} * width_, width_, factors_ + first_row, active};
      const uint8_t* p = reinterpret_cast<const uint8_t*>(scores_of(now, first_row));
      add_values<Kv, R>(values, width_, p, out, {values_of(next), shift});
    }
  }

  // Online softmax of one run of a row: scales, masks, exponentiates and sums its scores, and sets the factor that
  // rescales earlier output to the new maximum. The probabilities, times the V scales of an int8 cache, replace the
  // scores in the dtype that the V product reads.
  void softmax_run(int row, const Run& run) {
    float* scores = scores_of(run, row);
    const int64_t first_key = run.begin;
    const F32x16 scale = set1(args_.scale);
    F32x16 s0 = load(scores) * scale, s1 = load(scores + 16) * scale;
    const float* scales = args_.kv.kv_dtype == KvDtype::int8 ? int8_scales(args_.kv, run.base) : nullptr;
    if (scales != nullptr) {
      s0 = s0 * load(scales);
      s1 = s1 * load(scales + 16);
    }
    if (first_key + kRun - 1 > positions_[row] || first_key < first_keys_[row]) {
      s0 = mask_scores(s0, row, first_key);
      s1 = mask_scores(s1, row, first_key + 16);
    }
    const float run_max = reduce_max(max(s0, s1)), old_max = maxima_[row];
    const float new_max = run_max > old_max ? run_max : old_max;
    const float factor = run_max > old_max ? exp1(old_max - run_max) : 1.0f;
    F32x16 p0 = exp(s0 - set1(new_max)), p1 = exp(s1 - set1(new_max));
    float* sums = sums_ + row * 16;
    store(sums, load(sums) * set1(factor) + (p0 + p1));
    maxima_[row] = new_max;
    factors_[row] = factor;
    if (scales != nullptr) {
      p0 = p0 * load(scales + kRun);
      p1 = p1 * load(scales + kRun + 16);
    }
    if (args_.kv.dtype == DType::bf16) {
      store_bf16(reinterpret_cast<uint16_t*>(scores), p0);
      store_bf16(reinterpret_cast<uint16_t*>(scores) + 16, p1);
    } else {
      store(scores, p0);
      store(scores + 16, p1);
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
  uint8_t* panels_[2];  // expanded K and V panels of an int8 cache
  int num_rows_ = 0;
  // A row is a query token of one head.
  const uint8_t* q_[kTileRows];
  int64_t positions_[kTileRows];
  int64_t first_keys_[kTileRows];  // oldest key that the row sees; 0 without a window
  float maxima_[kTileRows];
  float factors_[kTileRows];
};

template <typename Kv>
void attend(const AttentionArgs& args, int tid, int num_threads) {
  Tile tile(args, args.scratch + tid * attention_scratch_bytes(args.kv));
  const int shared = args.group_size < kTileRows ? args.group_size : kTileRows;
  const int tokens_per_tile = kTileRows / shared;
  int64_t unit = 0;
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
        if (unit++ % num_threads == tid)
          tile.run<Kv>({seq, kv_head - args.first_kv_head, head, next - head, begin, end});
        head = next;
      }
    }
  }
}

}  // namespace

int64_t attention_scratch_bytes(const KvView& kv) {
  return int64_t{kTileRows} * (kv.padded_head_dim + 2 * kRun + 16) * 4 + expanded_bytes(kv);
}

void paged_attention(const AttentionArgs& args, int tid, int num_threads) {
  if (args.kv.dtype == DType::f32) return attend<F32Kv>(args, tid, num_threads);
#if NDS_BF16_DOT
  attend<DotKv>(args, tid, num_threads);
#else
  attend<PairKv>(args, tid, num_threads);
#endif
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
