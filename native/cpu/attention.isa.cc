// Paged causal attention: prefill, a chunk of prefill and decode are the same with more or fewer query rows.
//
// A query row visits its keys in runs of 32 from position 0 up, with an online softmax per run. Everything that decides its
// result (scores, maxima, rescaling, sums) looks at that row alone, so it does not matter which rows share a tile.
#include "cpu/activation.h"
#include "cpu/attention_tile.h"
#include "cpu/isa_ops.h"
#include "cpu/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

constexpr int kTileRows = 24;  // query rows that share a run while it is in the first-level cache
constexpr int kMaxRows = NDS_ISA >= 2 ? 6 : 1;
constexpr int kManyValues = NDS_ISA >= 2 ? 4 : 2;  // vectors of output dimensions held in registers

// One row of a tile: a query token of one head.
struct Row {
  const uint8_t* q;
  float* out;     // [padded_head_dim]
  float* scores;  // [32]
  uint8_t* p;     // [32] probabilities as the V product reads them; the same memory as scores for fp32
  int64_t position;
  int64_t first_key;  // with a window, the oldest key that the row sees
  float max;
  float sum;
};

// Masks, exponentiates and sums the scores of a run; rescales what the row has gathered when its maximum grows.
void softmax_run(const AttentionArgs& args, Row& row, int64_t run_begin) {
  const F32x16 scale = set1(args.scale), low = set1(-__builtin_inff());
  const int64_t num_seen = row.position + 1 - run_begin, num_past = row.first_key - run_begin;
  F32x16 s[2];
  for (int half = 0; half < 2; half++) {
    const int64_t seen = num_seen - half * 16, past = num_past - half * 16;
    const Mask16 not_after = first_n(seen < 0 ? 0 : seen > 16 ? 16 : static_cast<int>(seen));
    const Mask16 before = first_n(past < 0 ? 0 : past > 16 ? 16 : static_cast<int>(past));
    s[half] = select(before, low, select(not_after, load(row.scores + half * 16) * scale, low));
  }
  const float run_max = reduce_max(max(s[0], s[1]));
  if (run_max > row.max) {
    const float factor = exp1(row.max - run_max);
    for (int d = 0; d < args.kv.padded_head_dim; d += 16) store(row.out + d, load(row.out + d) * set1(factor));
    row.sum *= factor;
    row.max = run_max;
  }
  const F32x16 p0 = exp(s[0] - set1(row.max)), p1 = exp(s[1] - set1(row.max));
  row.sum += reduce_add(p0 + p1);
  if (args.kv.dtype == DType::bf16) {
    store_bf16(reinterpret_cast<uint16_t*>(row.p), p0);
    store_bf16(reinterpret_cast<uint16_t*>(row.p) + 16, p1);
  } else {
    store(reinterpret_cast<float*>(row.p), p0);
    store(reinterpret_cast<float*>(row.p) + 16, p1);
  }
}

template <typename Kv, int R>
void visit_rows(const AttentionArgs& args, Row* rows, const uint8_t* run, int64_t run_begin) {
  const uint8_t* q[R];
  const uint8_t* p[R];
  float* scores[R];
  float* out[R];
  uint32_t active = 0;
  for (int r = 0; r < R; r++) {
    q[r] = rows[r].q;
    p[r] = rows[r].p;
    scores[r] = rows[r].scores;
    out[r] = rows[r].out;
    if (run_begin <= rows[r].position && run_begin + kRun > rows[r].first_key) active |= 1u << r;
  }
  if (active == 0) return;
  score_rows<Kv, R>(run, q, args.kv.head_dim, scores);
  for (int r = 0; r < R; r++) {
    if ((active >> r & 1) != 0) softmax_run(args, rows[r], run_begin);
  }
  const uint8_t* v_panel = run + args.kv.run_bytes / 2;
  const int64_t row_bytes = int64_t{args.kv.padded_head_dim} * 4;
  int d = 0;
  for (; d + kManyValues * 16 <= args.kv.padded_head_dim; d += kManyValues * 16) add_values<Kv, R, kManyValues>(v_panel, row_bytes, p, out, d, active);
  for (; d < args.kv.padded_head_dim; d += 16) add_values<Kv, R, 1>(v_panel, row_bytes, p, out, d, active);
}

template <typename Kv>
void visit_run(const AttentionArgs& args, Row* rows, int num_rows, const uint8_t* run, int64_t run_begin) {
  int r = 0;
  for (; r + kMaxRows <= num_rows; r += kMaxRows) visit_rows<Kv, kMaxRows>(args, rows + r, run, run_begin);
#if NDS_ISA >= 2
  switch (num_rows - r) {
    case 1:
      return visit_rows<Kv, 1>(args, rows + r, run, run_begin);
    case 2:
      return visit_rows<Kv, 2>(args, rows + r, run, run_begin);
    case 3:
      return visit_rows<Kv, 3>(args, rows + r, run, run_begin);
    case 4:
      return visit_rows<Kv, 4>(args, rows + r, run, run_begin);
    case 5:
      return visit_rows<Kv, 5>(args, rows + r, run, run_begin);
    default:
      return;
  }
#endif
}

// A tile: query tokens [begin, end) of a sequence, for the heads of this rank that share one KV head.
struct TileWork {
  int seq;
  int kv_head;
  int first_head, num_heads;  // on this rank
  int begin, end;
};

class Tile {
 public:
  Tile(const AttentionArgs& args, uint8_t* scratch) : args_(args), scratch_(scratch) {}

  template <typename Kv>
  void run(const TileWork& work) {
    set_up(work);
    const KvView& kv = args_.kv;
    const int32_t* blocks = args_.block_tables + args_.cu_blocks[work.seq];
    const int64_t last_key = rows_[num_rows_ - 1].position;
    for (int64_t begin = rows_[0].first_key / kRun * kRun; begin <= last_key; begin += kRun) {
      const int64_t block = blocks[begin / kv.block_size];
      const uint8_t* run = kv.base + (block * kv.num_kv_heads + work.kv_head) * kv.tile_bytes + begin % kv.block_size / kRun * kv.run_bytes;
      visit_run<Kv>(args_, rows_, num_rows_, run, begin);
    }
    finish(work);
  }

 private:
  void set_up(const TileWork& work) {
    const KvView& kv = args_.kv;
    const int64_t size = kv.dtype == DType::bf16 ? 2 : 4;
    const int first_token = args_.cu_query_lens[work.seq];
    const int num_queries = args_.cu_query_lens[work.seq + 1] - first_token;
    const int64_t num_cached = args_.context_lens[work.seq] - num_queries;
    uint8_t* next = scratch_;
    num_rows_ = 0;
    for (int token = work.begin; token < work.end; token++) {
      for (int h = work.first_head; h < work.first_head + work.num_heads; h++) {
        Row& row = rows_[num_rows_++];
        row.q = static_cast<const uint8_t*>(args_.q) + ((first_token + token) * args_.ldq + int64_t{h} * kv.head_dim) * size;
        row.out = reinterpret_cast<float*>(next);
        next += kv.padded_head_dim * 4;
        row.scores = reinterpret_cast<float*>(next);
        row.p = next;
        next += kRun * 4;
        row.position = num_cached + token;
        const int64_t oldest = row.position + 1 - args_.sliding_window;
        row.first_key = args_.sliding_window > 0 && oldest > 0 ? oldest : 0;
        row.max = -__builtin_inff();
        row.sum = 0;
        std::memset(row.out, 0, static_cast<size_t>(kv.padded_head_dim) * 4);
      }
    }
  }

  void finish(const TileWork& work) {
    const KvView& kv = args_.kv;
    const int first_token = args_.cu_query_lens[work.seq];
    const Row* row = rows_;
    for (int token = work.begin; token < work.end; token++) {
      uint8_t* out = activation_row(args_.out, args_.ld_out, first_token + token, kv.dtype);
      for (int h = work.first_head; h < work.first_head + work.num_heads; h++, row++) {
        for (int d = 0; d < kv.head_dim; d += 16) {
          store_activation(out, int64_t{h} * kv.head_dim + d, load(row->out + d) / set1(row->sum), lanes(kv.head_dim, d), kv.dtype);
        }
      }
      if (work.first_head + work.num_heads == args_.num_heads) zero_padding(out, int64_t{args_.num_heads} * kv.head_dim, args_.ld_out, kv.dtype);
    }
  }

  const AttentionArgs& args_;
  uint8_t* scratch_;
  Row rows_[kTileRows];
  int num_rows_ = 0;
};

template <typename Kv>
void attend(const AttentionArgs& args, int tid, int num_threads) {
  Tile tile(args, args.scratch + tid * attention_scratch_bytes(args.kv.padded_head_dim));
  int64_t unit = 0;
  // Tiles in the outer loop: neighbours cost the same, so dealing them out in turn is fair.
  for (int seq = 0; seq < args.num_seqs; seq++) {
    const int num_queries = args.cu_query_lens[seq + 1] - args.cu_query_lens[seq];
    const int shared = args.group_size < kTileRows ? args.group_size : kTileRows;
    const int tokens_per_tile = kTileRows / shared;
    for (int begin = 0; begin < num_queries; begin += tokens_per_tile) {
      const int end = begin + tokens_per_tile < num_queries ? begin + tokens_per_tile : num_queries;
      for (int head = 0; head < args.num_heads;) {
        // Heads of this rank that share the KV head of `head`, at most a tile of them.
        const int kv_head = (args.first_head + head) / args.group_size;
        int next = (kv_head + 1) * args.group_size - args.first_head;
        if (next > args.num_heads) next = args.num_heads;
        if (next > head + kTileRows) next = head + kTileRows;
        if (unit++ % num_threads == tid) tile.run<Kv>({seq, kv_head - args.first_kv_head, head, next - head, begin, end});
        head = next;
      }
    }
  }
}

}  // namespace

int64_t attention_scratch_bytes(int padded_head_dim) { return int64_t{kTileRows} * (padded_head_dim * 4 + kRun * 4); }

void paged_attention(const AttentionArgs& args, int tid, int num_threads) {
  if (args.kv.dtype == DType::f32) return attend<F32Kv>(args, tid, num_threads);
#if NDS_ISA == 3
  attend<DotKv>(args, tid, num_threads);
#else
  attend<PairKv>(args, tid, num_threads);
#endif
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
