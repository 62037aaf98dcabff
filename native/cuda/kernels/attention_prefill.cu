// Paged attention of many query rows on tensor cores: prompts and their chunks. An item is 128 rows of one KV head; a
// warp takes 16 of them and all keys of a segment, so that its scores and probabilities stay in registers.
#include "attention_tile.h"
#include "cuda/check.h"

namespace nds::cuda {
namespace {

constexpr int kWarps = kPrefillTileRows / 16;
constexpr int kThreads = kWarps * 32;
constexpr int kWarpKeys = kSegment / kWarps;  // keys that a warp loads
constexpr int kStages = 2;
constexpr int kKeyTiles = kSegment / 8;

template <int kHeadDim>
constexpr size_t kSharedBytes = sizeof(__nv_bfloat16) * kHeadDim * (kPrefillTileRows + 2 * kStages * kSegment);

struct Launch {
  AttentionArgs args;
  AttentionPlan plan;
  float scale;  // args.scale * log2(e): scores in units of log 2
};

struct Shared {
  __nv_bfloat16* queries;  // [kPrefillTileRows, head_dim]
  __nv_bfloat16* keys;     // [kStages, kSegment, head_dim]
  __nv_bfloat16* values;   // [kStages, kSegment, head_dim]
};

// A tile of rows for one KV head; `rows` are the two of this lane.
struct Tile {
  AttentionItem item;
  int kv_head;
  KeyRange keys;
  AttentionRow rows[2];
};

// Copies this warp's queries to shared memory.
template <int kHeadDim>
__device__ void load_queries(const Launch& launch, const Tile& tile, const HeadGroup& group, __nv_bfloat16* queries) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int r = tile.item.tile * kPrefillTileRows + warp * 16 + lane % 16;
  const AttentionRow row = attention_row(tile.item, group, launch.plan.rows_per_token, 0, r);
  const int64_t at = row.token * launch.args.ldq + row.head * kHeadDim;
  load_rows<kHeadDim, 16>(queries, warp * 16, static_cast<const uint8_t*>(launch.args.q),
                          row.token < 0 ? -1 : static_cast<int>(at / 8));
}

// The key of a segment whose rows of K and V this lane finds for its warp to copy.
__device__ int lane_key(int segment) {
  return segment * kSegment + threadIdx.x / 32 * kWarpKeys + threadIdx.x % 32 % kWarpKeys;
}

// Copies K and V of a segment to a stage. block: of this lane's key.
template <int kHeadDim>
__device__ void load_segment(const KvCache& kv, const Tile& tile, int segment, int block, const Shared& shared) {
  const int first_row = threadIdx.x / 32 * kWarpKeys, stage = segment % kStages * kSegment * kHeadDim;
  const int offset = key_offset(kv, tile.kv_head, block, lane_key(segment));
  load_rows<kHeadDim, kWarpKeys>(shared.keys + stage, first_row, kv.base, offset);
  load_rows<kHeadDim, kWarpKeys>(shared.values + stage, first_row, kv.base + kv.panel_bytes(), offset);
}

// Scores [16, kSegment] of a warp's rows.
template <int kHeadDim>
__device__ void score(const __nv_bfloat16* queries, const __nv_bfloat16* keys, float (&scores)[kKeyTiles][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  NDS_UNROLL()
  for (int k = 0; k < kHeadDim / 16; k++) {
    uint32_t a[4];
    simt::ldmatrix_x4(a, queries + panel_index<kHeadDim>(warp * 16 + lane % 16, k * 2 + lane / 16));
    NDS_UNROLL()
    for (int n = 0; n < kKeyTiles; n += 2) {
      uint32_t b[4];
      simt::ldmatrix_x4(b, keys + panel_index<kHeadDim>(n * 8 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
      simt::mma_bf16(scores[n], a, b[0], b[1]);
      simt::mma_bf16(scores[n + 1], a, b[2], b[3]);
    }
  }
}

__device__ void mask(const AttentionRow (&rows)[2], int first_key, float (&scores)[kKeyTiles][4]) {
  NDS_UNROLL()
  for (int n = 0; n < kKeyTiles; n++) {
    NDS_UNROLL()
    for (int i = 0; i < 4; i++) {
      const int key = first_key + n * 8 + threadIdx.x % 4 * 2 + i % 2;
      const AttentionRow& row = rows[i / 2];
      if (key < row.oldest || key > row.position) scores[n][i] = -infinity();
    }
  }
}

// p of a segment as A fragments, with the rows' maxima (scaled) and sums; p of a masked score is 0.
template <bool kIsMasked>
__device__ void exponentiate(float scale, const float (&scores)[kKeyTiles][4], float (&maxima)[2], float (&sums)[2],
                             uint32_t (&weights)[kSegment / 16][4]) {
  NDS_UNROLL()
  for (int half = 0; half < 2; half++) {
    float largest = -infinity();
    NDS_UNROLL()
    for (int n = 0; n < kKeyTiles; n++) largest = fmaxf(largest, fmaxf(scores[n][half * 2], scores[n][half * 2 + 1]));
    maxima[half] = __fmul_rn(quad_max(largest), scale);
    // Sums quarters of the segment, as the four warps of the split kernel do: same bits.
    float sum = 0;
    NDS_UNROLL()
    for (int quarter = 0; quarter < 4; quarter++) {
      float part = 0;
      NDS_UNROLL()
      for (int n = quarter * kKeyTiles / 4; n < (quarter + 1) * kKeyTiles / 4; n++) {
        float p[2];
        NDS_UNROLL()
        for (int i = 0; i < 2; i++) {
          const float s = scores[n][half * 2 + i];
          p[i] = exp2_nonpositive(__fmaf_rn(s, scale, -maxima[half]));
          if (kIsMasked && s == -infinity()) p[i] = 0;
          part = __fadd_rn(part, p[i]);
        }
        weights[n / 2][n % 2 * 2 + half] = pack_bf16(p[0], p[1]);
      }
      sum = quarter == 0 ? part : __fadd_rn(sum, part);
    }
    sums[half] = quad_sum(sum);
  }
}

// Folds p v of a segment into total [16, head_dim].
template <int kHeadDim>
__device__ void add_values(const uint32_t (&weights)[kSegment / 16][4], const __nv_bfloat16* values,
                           const FoldFactors (&factors)[2], const bool (&sees)[2], bool all_see,
                           float (&total)[kHeadDim / 8][4]) {
  constexpr int kColumnTiles = 4;  // column tiles at once
  const int lane = threadIdx.x % 32;
  NDS_UNROLL()
  for (int first = 0; first < kHeadDim / 8; first += kColumnTiles) {
    float out[kColumnTiles][4] = {};
    NDS_UNROLL()
    for (int k = 0; k < kSegment / 16; k++) {
      NDS_UNROLL()
      for (int n = 0; n < kColumnTiles; n += 2) {
        uint32_t b[4];
        simt::ldmatrix_x4_trans(b, values + panel_index<kHeadDim>(k * 16 + lane % 16, first + n + lane / 16));
        simt::mma_bf16(out[n], weights[k], b[0], b[1]);
        simt::mma_bf16(out[n + 1], weights[k], b[2], b[3]);
      }
    }
    NDS_UNROLL()
    for (int n = 0; n < kColumnTiles; n++) {
      NDS_UNROLL()
      for (int i = 0; i < 4; i++) {
        if (all_see || sees[i / 2]) total[first + n][i] = folded(total[first + n][i], out[n][i], factors[i / 2]);
      }
    }
  }
}

template <int kHeadDim>
__device__ void visit_segment(const Launch& launch, const Tile& tile, int segment, const Shared& shared,
                              SegmentFold (&norms)[2], float (&total)[kHeadDim / 8][4]) {
  const int first_key = segment * kSegment, stage = segment % kStages * kSegment * kHeadDim;
  bool sees[2], is_whole = true;
  for (int half = 0; half < 2; half++) {
    const AttentionRow& row = tile.rows[half];
    sees[half] = row.position >= first_key && row.oldest < first_key + kSegment;
    is_whole = is_whole && row.position >= first_key + kSegment - 1 && row.oldest <= first_key;
  }
  if (!__any_sync(kAllLanes, sees[0] || sees[1])) return;
  is_whole = __all_sync(kAllLanes, is_whole);

  float scores[kKeyTiles][4] = {};
  score<kHeadDim>(shared.queries, shared.keys + stage, scores);
  float maxima[2], sums[2];
  uint32_t weights[kSegment / 16][4];
  if (is_whole) {
    exponentiate<false>(launch.scale, scores, maxima, sums, weights);
  } else {
    mask(tile.rows, first_key, scores);
    exponentiate<true>(launch.scale, scores, maxima, sums, weights);
  }
  FoldFactors factors[2] = {{1, 0}, {1, 0}};
  for (int half = 0; half < 2; half++) {
    sees[half] = maxima[half] != -infinity();
    if (sees[half]) factors[half] = fold(&norms[half], maxima[half], sums[half]);
  }
  const bool all_see = __all_sync(kAllLanes, sees[0] && sees[1]);
  add_values<kHeadDim>(weights, shared.values + stage, factors, sees, all_see, total);
}

template <int kHeadDim>
__device__ void write_result(const AttentionArgs& args, const AttentionRow (&rows)[2], const SegmentFold (&norms)[2],
                             const float (&total)[kHeadDim / 8][4]) {
  const int lane = threadIdx.x % 32;
  NDS_UNROLL()
  for (int half = 0; half < 2; half++) {
    const AttentionRow& row = rows[half];
    if (row.token < 0) continue;
    const float inverse = __fdiv_rn(1.0f, norms[half].sum);
    __nv_bfloat16* to =
        static_cast<__nv_bfloat16*>(args.out) + row.token * args.ld_out + row.head * kHeadDim + lane % 4 * 2;
    NDS_UNROLL()
    for (int n = 0; n < kHeadDim / 8; n++) {
      *reinterpret_cast<uint32_t*>(to + n * 8) =
          pack_bf16(__fmul_rn(total[n][half * 2], inverse), __fmul_rn(total[n][half * 2 + 1], inverse));
    }
    if (row.head != args.heads.num_heads - 1) continue;
    for (int i = 0; i < 8; i++) zero_output_padding(args, row.token, lane % 4 + i * 4);
  }
}

template <int kHeadDim>
__device__ void attend(const Launch& launch, Tile& tile, const Shared& shared) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, rows_per_token = launch.plan.rows_per_token;
  const HeadGroup group = head_group(launch.args.heads, tile.kv_head);
  tile.keys = key_range(tile.item, kPrefillTileRows, rows_per_token, launch.args.sliding_window);
  for (int half = 0; half < 2; half++) {
    const int row = tile.item.tile * kPrefillTileRows + warp * 16 + half * 8 + lane / 4;
    tile.rows[half] = attention_row(tile.item, group, rows_per_token, launch.args.sliding_window, row);
  }
  const int begin = tile.keys.begin / kSegment, end = (tile.keys.end + kSegment - 1) / kSegment;
  load_queries<kHeadDim>(launch, tile, group, shared.queries);
  const KvCache& kv = launch.args.kv;
  const auto block_of = [&](int segment) { return key_block(launch.args, tile.item, tile.keys, lane_key(segment)); };
  load_segment<kHeadDim>(kv, tile, begin, block_of(begin), shared);
  simt::cp_async_commit();
  int next_block = block_of(begin + 1);
  SegmentFold norms[2];
  float total[kHeadDim / 8][4] = {};
  for (int segment = begin; segment < end; segment++) {
    simt::cp_async_wait<0>();
    __syncthreads();  // the segment is there, the other stage is free
    if (segment + 1 < end) load_segment<kHeadDim>(kv, tile, segment + 1, next_block, shared);
    simt::cp_async_commit();
    next_block = block_of(segment + 2);
    visit_segment<kHeadDim>(launch, tile, segment, shared, norms, total);
  }
  simt::cp_async_wait<0>();
  write_result<kHeadDim>(launch.args, tile.rows, norms, total);
}

// One block per item and KV head, from the last item down: the last tiles of a long prompt see the most keys and start
// first.
template <int kHeadDim>
__global__ void __launch_bounds__(kThreads, 1) prefill_attention_kernel(Launch launch) {
  simt::wait_for_previous();
  simt::SharedCarver carver;
  Shared shared;
  shared.queries = carver.take<__nv_bfloat16>(kPrefillTileRows * kHeadDim);
  shared.keys = carver.take<__nv_bfloat16>(kStages * kSegment * kHeadDim);
  shared.values = carver.take<__nv_bfloat16>(kStages * kSegment * kHeadDim);
  const int num_kv_heads = launch.args.heads.num_kv_heads;
  const int item = launch.plan.counts[1] - 1 - static_cast<int>(blockIdx.x / num_kv_heads);
  if (item < 0) return;
  Tile tile;
  tile.item = launch.plan.prefill_items[item];
  tile.kv_head = static_cast<int>(blockIdx.x % num_kv_heads);
  attend<kHeadDim>(launch, tile, shared);
}

template <int kHeadDim>
void launch_head_dim(const Launch& launch, unsigned num_blocks, LaunchPlace place) {
  const simt::LaunchShape shape{dim3(num_blocks), dim3(kThreads), kSharedBytes<kHeadDim>, place};
  check(simt::launch(prefill_attention_kernel<kHeadDim>, shape, launch), "prefill_attention_kernel");
}

}  // namespace

void launch_prefill_attention(const AttentionArgs& args, const AttentionPlan& plan, LaunchPlace place) {
  const AttentionBatch& batch = args.batch;
  const Launch launch{args, plan, args.scale * kLog2E};
  const int64_t seqs = batch.max_seqs < batch.max_tokens ? batch.max_seqs : batch.max_tokens;
  const int64_t tiles = seqs + int64_t{batch.max_tokens} * plan.rows_per_token / kPrefillTileRows;
  const unsigned num_blocks = static_cast<unsigned>(tiles * args.heads.num_kv_heads);
  if (num_blocks == 0) return;
  if (args.kv.head_dim == 64)
    launch_head_dim<64>(launch, num_blocks, place);
  else
    launch_head_dim<128>(launch, num_blocks, place);
}

}  // namespace nds::cuda
