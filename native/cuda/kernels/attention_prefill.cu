// Paged attention of many query rows on tensor cores: prompts and their chunks. An item is 128 rows of one KV head; a
// warp takes 16 of them and all keys of a segment, so that its scores and probabilities stay in registers.
#include "attention_prefill_tile.h"
#include "cuda/check.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = kPrefillWarps * 32;
constexpr int kWarpKeys = kSegment / kPrefillWarps;  // keys that a warp loads
// bf16 panels. Those of an int8 cache are single: the next segment is in flight to the int8 panels.
template <typename Element>
constexpr int kStages = kIsInt8<Element> ? 1 : 2;

template <int kHeadDim, typename Element>
constexpr size_t kSharedBytes =
    sizeof(__nv_bfloat16) * kHeadDim * (kPrefillTileRows + 2 * kStages<Element> * kSegment) +
    (kIsInt8<Element> ? 2 * kSegment * (kHeadDim + sizeof(float)) : 0);

struct Launch {
  AttentionArgs args;
  AttentionPlan plan;
  float scale;  // args.scale * log2(e): scores in units of log 2
};

struct Shared {
  __nv_bfloat16* queries;  // [kPrefillTileRows, head_dim]
  __nv_bfloat16* keys;     // [kStages, kSegment, head_dim]
  __nv_bfloat16* values;   // [kStages, kSegment, head_dim]
  // Of an int8 cache:
  int8_t* int8_keys;    // [kSegment, head_dim] of the next segment
  int8_t* int8_values;  // [kSegment, head_dim]
  float* scales;        // [2, kSegment] of K and of V
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

// Copies K and V of a segment to its stage, or to the int8 panels. block: of this lane's key. Returns what this lane
// writes to scales at threadIdx.x / 32 * kWarpKeys + lane % 16: lanes 0 … 15 K's, the others V's.
template <int kHeadDim, typename Element>
__device__ float load_segment(const KvCache& kv, const Tile& tile, int segment, int block, const Shared& shared) {
  const int first_row = threadIdx.x / 32 * kWarpKeys, key = lane_key(segment);
  const int offset = key_offset<Element>(kv, tile.kv_head, block, key);
  if constexpr (kIsInt8<Element>) {
    load_rows<kHeadDim, kWarpKeys>(shared.int8_keys, first_row, kv.base, offset);
    load_rows<kHeadDim, kWarpKeys>(shared.int8_values, first_row, kv.base + kv.panel_bytes(), offset);
    return block < 0 ? 0 : key_scale(kv, tile.kv_head, block, key)[threadIdx.x % 32 / kWarpKeys * kv.block_size];
  } else {
    const int stage = segment % kStages<Element> * kSegment * kHeadDim;
    load_rows<kHeadDim, kWarpKeys>(shared.keys + stage, first_row, kv.base, offset);
    load_rows<kHeadDim, kWarpKeys>(shared.values + stage, first_row, kv.base + kv.panel_bytes(), offset);
    return 1;
  }
}

template <int kHeadDim, typename Element>
__device__ void visit_segment(const Launch& launch, const Tile& tile, int segment, const Shared& shared,
                              SegmentFold (&norms)[2], float (&total)[kHeadDim / 8][4]) {
  const int first_key = segment * kSegment, stage = segment % kStages<Element> * kSegment * kHeadDim;
  bool sees[2], is_whole = true;
  for (int half = 0; half < 2; half++) {
    const AttentionRow& row = tile.rows[half];
    sees[half] = row.position >= first_key && row.oldest < first_key + kSegment;
    is_whole = is_whole && row.position >= first_key + kSegment - 1 && row.oldest <= first_key;
  }
  if (!__any_sync(kAllLanes, sees[0] || sees[1])) return;
  is_whole = __all_sync(kAllLanes, is_whole);

  float scores[kKeyTiles][4] = {};
  score<kHeadDim, Element>(shared.queries, shared.keys + stage, scores);
  if (kIsInt8<Element>) scale_scores(shared.scales, scores);
  const float* value_scales = kIsInt8<Element> ? shared.scales + kSegment : nullptr;
  float maxima[2], sums[2];
  uint32_t weights[kSegment / 16][4];
  if (is_whole) {
    exponentiate<Element, false>(value_scales, launch.scale, scores, maxima, sums, weights);
  } else {
    mask(tile.rows, first_key, scores);
    exponentiate<Element, true>(value_scales, launch.scale, scores, maxima, sums, weights);
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

template <int kHeadDim, typename Element>
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
  float scale = load_segment<kHeadDim, Element>(kv, tile, begin, block_of(begin), shared);
  simt::cp_async_commit();
  int next_block = block_of(begin + 1);
  SegmentFold norms[2];
  float total[kHeadDim / 8][4] = {};
  for (int segment = begin; segment < end; segment++) {
    simt::cp_async_wait<0>();
    __syncthreads();  // the segment is there, the other stage is free
    if constexpr (kIsInt8<Element>) {
      widen_segment<kHeadDim>(shared.int8_keys, shared.int8_values, shared.keys, shared.values);
      shared.scales[lane / kWarpKeys * kSegment + warp * kWarpKeys + lane % kWarpKeys] = scale;
      __syncthreads();  // bf16 panels and scales are there, int8 panels are free
    }
    if (segment + 1 < end) scale = load_segment<kHeadDim, Element>(kv, tile, segment + 1, next_block, shared);
    simt::cp_async_commit();
    next_block = block_of(segment + 2);
    visit_segment<kHeadDim, Element>(launch, tile, segment, shared, norms, total);
  }
  simt::cp_async_wait<0>();
  write_result<kHeadDim>(launch.args, tile.rows, norms, total);
}

// One block per item and KV head, from the last item down: the last tiles of a long prompt see the most keys and start
// first.
template <int kHeadDim, typename Element>
__global__ void __launch_bounds__(kThreads, 1) prefill_attention_kernel(Launch launch) {
  simt::wait_for_previous();
  simt::SharedCarver carver;
  Shared shared = {};
  shared.queries = carver.take<__nv_bfloat16>(kPrefillTileRows * kHeadDim);
  shared.keys = carver.take<__nv_bfloat16>(kStages<Element> * kSegment * kHeadDim);
  shared.values = carver.take<__nv_bfloat16>(kStages<Element> * kSegment * kHeadDim);
  if constexpr (kIsInt8<Element>) {
    shared.int8_keys = carver.take<int8_t>(kSegment * kHeadDim);
    shared.int8_values = carver.take<int8_t>(kSegment * kHeadDim);
    shared.scales = carver.take<float>(2 * kSegment);
  }
  const int num_kv_heads = launch.args.heads.num_kv_heads;
  const int item = launch.plan.counts[1] - 1 - static_cast<int>(blockIdx.x / num_kv_heads);
  if (item < 0) return;
  Tile tile;
  tile.item = launch.plan.prefill_items[item];
  tile.kv_head = static_cast<int>(blockIdx.x % num_kv_heads);
  attend<kHeadDim, Element>(launch, tile, shared);
}

template <int kHeadDim, typename Element>
void launch_kernel(const Launch& launch, unsigned num_blocks, LaunchPlace place) {
  const simt::LaunchShape shape{dim3(num_blocks), dim3(kThreads), kSharedBytes<kHeadDim, Element>, place};
  check(simt::launch(prefill_attention_kernel<kHeadDim, Element>, shape, launch), "prefill_attention_kernel");
}

}  // namespace

void launch_prefill_attention(const AttentionArgs& args, const AttentionPlan& plan, LaunchPlace place) {
  const AttentionBatch& batch = args.batch;
  const Launch launch{args, plan, args.scale * kLog2E};
  const int64_t seqs = batch.max_seqs < batch.max_tokens ? batch.max_seqs : batch.max_tokens;
  const int64_t tiles = seqs + int64_t{batch.max_tokens} * plan.rows_per_token / kPrefillTileRows;
  const unsigned num_blocks = static_cast<unsigned>(tiles * args.heads.num_kv_heads);
  if (num_blocks == 0) return;
  const bool is_int8 = args.kv.kv_dtype == KvDtype::int8;
  const auto launch_kernel_of = args.kv.head_dim == 64
                                    ? (is_int8 ? launch_kernel<64, int8_t> : launch_kernel<64, __nv_bfloat16>)
                                : is_int8 ? launch_kernel<128, int8_t>
                                          : launch_kernel<128, __nv_bfloat16>;
  launch_kernel_of(launch, num_blocks, place);
}

}  // namespace nds::cuda
