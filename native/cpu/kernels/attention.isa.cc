// Paged causal attention. Prefill, chunked prefill and decode differ only in the number of query rows.
//
// A query row visits its keys in runs of 32 by ascending position, with an online softmax per run. Its scores, maxima,
// rescaling and sums depend on that row alone, so which rows share a tile changes no bit.
#include <type_traits>

#include "cpu/kernels/activation.h"
#include "cpu/kernels/attention_softmax.h"
#include "cpu/kernels/attention_tile.h"
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/kv_int8.h"
#include "cpu/kernels/kv_panel.h"
#include "cpu/kernels/share.h"
#include "cpu/kernels/simd.h"
#if NDS_AMX
#include "cpu/kernels/attention_amx.h"
#endif

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

// A tile: query tokens [begin, end) of a sequence, for heads of this rank that share one KV head.
struct TileWork {
  int seq = 0;
  int kv_head = 0;
  int first_head = 0, num_heads = 0;  // on this rank
  int begin = 0, end = 0;
  int64_t first_run = 0, last_run = 0;  // first keys of the oldest and the newest run that some row sees
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

// Bytes of KV from the run that is multiplied to the one that is prefetched meanwhile, rounded up to whole runs.
constexpr int64_t kAheadBytes = 8 << 10;

int num_queries_of(const AttentionArgs& args, int seq) { return args.cu_query_lens[seq + 1] - args.cu_query_lens[seq]; }
// Of new token `token` of a sequence.
int64_t position_of(const AttentionArgs& args, int seq, int token) {
  return args.context_lens[seq] - num_queries_of(args, seq) + token;
}
int64_t oldest_key(const AttentionArgs& args, int64_t position) {
  const int64_t oldest = position + 1 - args.sliding_window;
  return args.sliding_window > 0 && oldest > 0 ? oldest : 0;
}

class Tile {
 public:
  // scratch: [attention_scratch_bytes(kv)].
  Tile(const AttentionArgs& args, uint8_t* scratch)
      : args_(args),
        width_(args.kv.padded_head_dim),
        ahead_((kAheadBytes + args.kv.run_bytes - 1) / args.kv.run_bytes * kRun),
        out_(reinterpret_cast<float*>(scratch)),
        rows_(args, out_ + int64_t{kTileRows} * width_) {
    panels_[0] = reinterpret_cast<uint8_t*>(out_ + kTileRows * (width_ + SoftmaxRows::kFloatsPerRow));
    panels_[1] = panels_[0] + expanded_bytes(args.kv) / 2;
#if NDS_AMX
    amx_.queries = panels_[0] + expanded_bytes(args.kv);
#endif
  }

  // following: what this thread visits next, or null: its first runs are prefetched, so that short contexts begin warm.
  template <typename Kv>
  void run(const TileWork& work, const TileWork* following) {
    set_up(work);
    following_ = following;
    const int num_groups = (rows_.count() + kMaxTileRows - 1) / kMaxTileRows;
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
  template <typename Kv>
  void visit_runs(const TileWork& work, int num_groups) {
    // Scores are computed one run ahead: their multiply-adds fill the units that the latency-bound exp of the previous
    // run leaves idle.
    const Run none{args_.kv.base, kNoRun};
    Run now = none, next = locate(work, work.first_run);
    const uint8_t* ahead = none.base;
    while (now.begin != kNoRun || next.begin != kNoRun) {
      const uint8_t* const values_ahead = ahead + args_.kv.panel_bytes;  // of the run whose keys came last
      if (next.begin != kNoRun) ahead = run_ahead(work, next.begin + ahead_);
      if (is_expanded_) expand_panels<Kv::kPerStep>(now, next, ahead);
      visit_run<Kv>(num_groups, {now, next, keys_of(next), values_of(now), ahead, values_ahead});
      now = next;
      next = now.begin != kNoRun && now.begin < work.last_run ? locate(work, now.begin + kRun) : none;
    }
  }

  template <typename Kv>
  void visit_run(int num_groups, const Visit& visit) {
#if NDS_AMX
    if constexpr (std::is_same_v<Kv, DotKv>) return amx_.visit_run(visit, rows_, out_, args_.kv);
#endif
    // Groups of nearly equal size.
    const int num_rows = rows_.count();
    for (int i = 0; i < num_groups; i++) {
      visit_group<Kv>(num_rows * i / num_groups, num_rows * (i + 1) / num_groups, visit);
    }
  }

  // The stored run to prefetch: that from `begin` on, or, past the last, as many further in the following tile, of
  // which it is the last at most.
  const uint8_t* run_ahead(const TileWork& work, int64_t begin) const {
    if (begin <= work.last_run) return locate(work, begin).base;
    if (following_ == nullptr) return args_.kv.base;
    const int64_t there = following_->first_run + begin - work.last_run - kRun;
    return locate(*following_, there < following_->last_run ? there : following_->last_run).base;
  }

  Run locate(const TileWork& work, int64_t begin) const {
    const KvView& kv = args_.kv;
    const uint32_t key = static_cast<uint32_t>(begin), block_size = static_cast<uint32_t>(kv.block_size);
    const int64_t block = args_.block_tables[args_.first_blocks[work.seq] + key / block_size];
    const uint8_t* tile = kv.base + block * kv.block_stride + work.kv_head * kv.tile_bytes;
    return {tile + key % block_size / kRun * kv.run_bytes, begin};
  }

  const uint8_t* stored_values(const Run& run) const { return run.base + args_.kv.panel_bytes; }

  // The panels to multiply.
  const uint8_t* keys_of(const Run& next) const { return is_expanded_ ? panels_[0] : next.base; }
  const uint8_t* values_of(const Run& now) const { return is_expanded_ ? panels_[1] : stored_values(now); }

  // Expands panels once for all rows of the tile: K of `next`, V of `now`. ahead: the run to prefetch.
  template <int kRowsPerStep>
  void expand_panels(const Run& now, const Run& next, const uint8_t* ahead) {
    if (args_.kv.kv_dtype == KvDtype::bf16) {
      if (next.begin != kNoRun) expand_bf16(next.base, args_.kv.head_dim, kRun, panels_[0]);
      if (now.begin != kNoRun) expand_bf16(stored_values(now), kRun, width_, panels_[1]);
      return;
    }
    for (int i = 0; i < 4; i++) prefetch_l2(int8_scales(args_.kv, ahead) + i * 16);
    if (next.begin != kNoRun) expand_int8<kRowsPerStep>(next.base, args_.kv.head_dim, kRun, panels_[0]);
    if (now.begin != kNoRun) expand_int8<kRowsPerStep>(stored_values(now), kRun, width_, panels_[1]);
  }

  void set_up(const TileWork& work) {
    const KvView& kv = args_.kv;
    const int64_t size = kv.dtype == DType::bf16 ? 2 : 4;
    const int first_token = args_.cu_query_lens[work.seq];
    rows_.clear();
    for (int token = work.begin; token < work.end; token++) {
      const uint8_t* q = static_cast<const uint8_t*>(args_.q) + (first_token + token) * args_.ldq * size;
      const int64_t position = position_of(args_, work.seq, token);
      for (int h = work.first_head; h < work.first_head + work.num_heads; h++) {
        q_[rows_.count()] = q + int64_t{h} * kv.head_dim * size;
        rows_.add(position, oldest_key(args_, position));
      }
    }
    std::memset(out_, 0, static_cast<size_t>(rows_.count()) * width_ * 4);
#if NDS_AMX
    if (query_bytes(kv) > 0) amx_.set_up(q_, rows_.count(), kv.head_dim);
#endif
  }

  // Rows [begin, end) of the tile.
  template <typename Kv>
  void visit_group(int begin, int end, const Visit& visit) {
    switch (end - begin) {
      case 1:
        return visit_rows<Kv, 1>(begin, visit);
#if NDS_AVX512 || NDS_AVX2 || NDS_NEON
      case 2:
        return visit_rows<Kv, 2>(begin, visit);
#endif
#if NDS_AVX512 || NDS_AVX2
      case 3:
        return visit_rows<Kv, 3>(begin, visit);
#endif
#if NDS_AVX512
      case 4:
        return visit_rows<Kv, 4>(begin, visit);
      case 5:
        return visit_rows<Kv, 5>(begin, visit);
      case 6:
        return visit_rows<Kv, 6>(begin, visit);
#endif
    }
  }

  template <typename Kv, int R>
  void visit_rows(int first_row, const Visit& visit) {
    // Bytes of the panels that are read ÷ of those stored, as a power of 2.
    const int shift = !is_expanded_ ? 0 : args_.kv.kv_dtype == KvDtype::bf16 || Kv::kPerStep == 2 ? 1 : 2;
    const uint32_t active = rows_.active(first_row, R, visit.now);
    if (active != 0) rows_.softmax<R>(first_row, active, visit.now);
    if (rows_.active(first_row, R, visit.next) != 0) {
      score_rows<Kv, R>(visit.keys, q_ + first_row, args_.kv.head_dim, rows_.scores(visit.next, first_row),
                        {visit.keys_ahead, shift});
    }
    if (active != 0) {
      const OutRows out{out_ + int64_t{first_row} * width_, width_, rows_.factors(first_row), active};
      const uint8_t* p = reinterpret_cast<const uint8_t*>(rows_.scores(visit.now, first_row));
      add_values<Kv, R>(visit.values, width_, p, out, {visit.values_ahead, shift});
    }
  }

  void finish(const TileWork& work) {
    const KvView& kv = args_.kv;
    const int first_token = args_.cu_query_lens[work.seq];
    int row = 0;
    for (int token = work.begin; token < work.end; token++) {
      uint8_t* out = activation_row(args_.out, args_.ld_out, first_token + token, kv.dtype);
      for (int h = work.first_head; h < work.first_head + work.num_heads; h++, row++) {
        const F32x16 sum = set1(rows_.sum(row));
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
  const int64_t ahead_;  // keys
  float* const out_;     // [rows][width_]
  SoftmaxRows rows_;
  const uint8_t* q_[kTileRows];  // of the rows
  uint8_t* panels_[2];           // K and V panels, where is_expanded_
  bool is_expanded_ = false;
#if NDS_AMX
  AmxTile amx_;
#endif
  const TileWork* following_ = nullptr;
};

// What part `tid` visits. Tiles are divided by cost, runs times rows, in the order of sequences, so that in decoding a
// part reads what it stored itself: rope_and_store divides tokens alike. Of a sequence all tiles of a head come one
// after the other, while its KV is in L2.
template <typename Visit>
void for_each_tile(const AttentionArgs& args, int tid, int num_threads, Visit visit) {
  const int shared = args.group_size < kTileRows ? args.group_size : kTileRows;
  const int tokens_per_tile = kTileRows / shared;
  // The tiles of a sequence in turn, for the heads that `heads` names.
  const auto each_tile = [&](int seq, TileWork heads, auto body) {
    const int num_queries = num_queries_of(args, seq);
    for (int begin = 0; begin < num_queries; begin += tokens_per_tile) {
      TileWork tile = heads;
      tile.seq = seq;
      tile.begin = begin;
      tile.end = begin + tokens_per_tile < num_queries ? begin + tokens_per_tile : num_queries;
      tile.first_run = oldest_key(args, position_of(args, seq, begin)) / kRun * kRun;
      tile.last_run = position_of(args, seq, tile.end - 1) / kRun * kRun;
      body(tile, ((tile.last_run - tile.first_run) / kRun + 1) * (tile.end - begin) * tile.num_heads);
    }
  };
  const auto seq_cost = [&](int seq) {
    int64_t sum = 0;
    each_tile(seq, {.num_heads = args.num_heads}, [&](const TileWork&, int64_t cost) { sum += cost; });
    return sum;
  };
  int64_t total = 0;
  for (int seq = 0; seq < args.num_seqs; seq++) total += seq_cost(seq);
  const Share mine = share_of(total, tid, num_threads);
  int64_t at = 0;
  for (int seq = 0; seq < args.num_seqs && at < mine.end; seq++) {
    const int64_t cost = seq_cost(seq);
    if (at + cost <= mine.begin) {
      at += cost;
      continue;
    }
    for (int head = 0; head < args.num_heads;) {
      // Heads of this rank that share the KV head of `head`, max kTileRows of them.
      const int kv_head = (args.first_head + head) / args.group_size;
      int next = (kv_head + 1) * args.group_size - args.first_head;
      if (next > args.num_heads) next = args.num_heads;
      if (next > head + kTileRows) next = head + kTileRows;
      const TileWork heads{.kv_head = kv_head - args.first_kv_head, .first_head = head, .num_heads = next - head};
      each_tile(seq, heads, [&](const TileWork& tile, int64_t cost) {
        if (at >= mine.begin && at < mine.end) visit(tile);
        at += cost;
      });
      head = next;
    }
  }
}

template <typename Kv>
void attend(const AttentionArgs& args, int tid, int num_threads) {
  Tile tile(args, args.scratch + tid * attention_scratch_bytes(args.kv));
  TileWork tiles[2];  // this thread's newest two
  int num_tiles = 0;
  for_each_tile(args, tid, num_threads, [&](const TileWork& newest) {
    tiles[num_tiles % 2] = newest;
    if (num_tiles++ > 0) tile.run<Kv>(tiles[num_tiles % 2], &newest);
  });
  if (num_tiles > 0) tile.run<Kv>(tiles[(num_tiles - 1) % 2], nullptr);
}

}  // namespace

int64_t attention_scratch_bytes(const KvView& kv) {
  return int64_t{kTileRows} * (kv.padded_head_dim + SoftmaxRows::kFloatsPerRow) * 4 + expanded_bytes(kv) +
         query_bytes(kv);
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
