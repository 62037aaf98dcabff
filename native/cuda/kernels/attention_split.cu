// Paged attention of few query rows on tensor cores: decode and verify. An item is 16 rows of one KV head and one
// segment of keys (or all, where the plan could not split them); the last block of a tile folds its segments.
#include "attention_split_tile.h"
#include "cuda/check.h"

namespace nds::cuda {
namespace {

constexpr int kWarps = kSplitWarps;
constexpr int kThreads = kWarps * 32;
constexpr int kRows = kSplitTileRows;
// An int8 block has half the bytes in flight.
template <typename Element>
constexpr int kBlocksPerMultiprocessor = kIsInt8<Element> ? 4 : 3;

template <int kHeadDim, typename Element>
constexpr size_t kSharedBytes = sizeof(Element) * 2 * kSegment * kHeadDim +
                                sizeof(__nv_bfloat16) * kRows * kWeightStride + sizeof(float) * kWarps * kRows * 5 + 32;

__device__ int num_work(const SplitLaunch& launch) { return launch.plan.counts[0] * launch.args.heads.num_kv_heads; }

__device__ bool load_work(const SplitLaunch& launch, int index, SplitWork* work) {
  const int num_kv_heads = launch.args.heads.num_kv_heads;
  if (index >= num_work(launch)) return false;
  work->index = index;
  work->item = launch.plan.split_items[index / num_kv_heads];
  work->kv_head = index % num_kv_heads;
  work->keys = key_range(work->item, kRows, launch.plan.rows_per_token, launch.args.sliding_window);
  const bool is_split = work->item.segment >= 0;
  work->segment = is_split ? work->item.segment : work->keys.begin / kSegment;
  work->end_segment = is_split ? work->segment + 1 : (work->keys.end + kSegment - 1) / kSegment;
  return true;
}

// The next segment of the item, else the block's next item.
__device__ bool next_work(const SplitLaunch& launch, int next_index, SplitWork* work) {
  if (++work->segment < work->end_segment) return true;
  return load_work(launch, next_index, work);
}

// A block's first two items are given, every other one is the first that no block has taken: one that folds many
// segments takes fewer items. It takes one while it begins an item that another one follows. So there are as many
// tickets as items past each block's first, and whoever draws the last puts them back for the next launch.
__device__ uint32_t draw_ticket(const SplitLaunch& launch) { return atomicAdd(launch.plan.ticket, 1u); }
__device__ void put_back_tickets(const SplitLaunch& launch, uint32_t drawn) {
  if (drawn == num_work(launch) - gridDim.x - 1) atomicExch(launch.plan.ticket, 0u);
}

// The key of a segment whose rows of K and V this lane finds for its warp to copy.
__device__ int lane_key(const SplitWork& work) { return work.segment * kSegment + threadIdx.x; }
__device__ int lane_block(const SplitLaunch& launch, const SplitWork& work) {
  return key_block(launch.args, work.item, work.keys, lane_key(work));
}
template <typename Element>
__device__ int lane_offset(const SplitLaunch& launch, const SplitWork& work, int block) {
  return key_offset<Element>(launch.args.kv, work.kv_head, block, lane_key(work));
}
template <typename Element>
__device__ KeyScales lane_scales(const SplitLaunch& launch, const SplitWork& work, int block) {
  if (!kIsInt8<Element> || block < 0) return {0, 0};
  const float* scale = key_scale(launch.args.kv, work.kv_head, block, lane_key(work));
  return {scale[0], scale[launch.args.kv.block_size]};
}

// The queries of a tile as A fragments, from global memory, their columns in the order of multiply_keys.
template <int kHeadDim, typename Element>
__device__ void load_queries(const AttentionArgs& args, const AttentionRow (&rows)[2],
                             uint32_t (&q)[kHeadDim / 16][4]) {
  const __nv_bfloat16* base = static_cast<const __nv_bfloat16*>(args.q);
  const int quad = threadIdx.x % 4;
  NDS_UNROLL()
  for (int i = 0; i < 4; i++) {
    const AttentionRow& row = rows[i % 2];
    const int column = kIsInt8<Element> ? quad * 4 + i / 2 * 2 : quad * 2 + i / 2 * 8;
    const __nv_bfloat16* from = base + row.token * args.ldq + row.head * kHeadDim + column;
    NDS_UNROLL()
    for (int k = 0; k < kHeadDim / 16; k++) {
      q[k][i] = row.token >= 0 ? *reinterpret_cast<const uint32_t*>(from + k * 16) : 0;
    }
  }
}

// This warp's columns of the tile's result.
template <int kHeadDim, typename Element>
__device__ void write_result(const SplitLaunch& launch, const SplitWork& work, const SegmentFold (&total)[2],
                             const float (&out)[kHeadDim / 32][4]) {
  const AttentionArgs& args = launch.args;
  const HeadGroup group = head_group(args.heads, work.kv_head);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  NDS_UNROLL()
  for (int half = 0; half < 2; half++) {
    // Computed again: where a row lies would take registers all the while.
    const int r = work.item.tile * kRows + half * 8 + lane / 4;
    const AttentionRow row = attention_row(work.item, group, launch.plan.rows_per_token, 0, r);
    if (row.token < 0) continue;
    const float inverse = __fdiv_rn(1.0f, total[half].sum);
    __nv_bfloat16* to =
        static_cast<__nv_bfloat16*>(args.out) + row.token * args.ld_out + row.head * kHeadDim + warp * (kHeadDim / 4);
    NDS_UNROLL()
    for (int n = 0; n < kHeadDim / 32; n++) {
      *reinterpret_cast<uint32_t*>(to + pair_column<Element>(n)) =
          pack_bf16(__fmul_rn(out[n][half * 2], inverse), __fmul_rn(out[n][half * 2 + 1], inverse));
    }
    if (warp != 0 || row.head != args.heads.num_heads - 1) continue;
    for (int i = 0; i < 8; i++) zero_output_padding(args, row.token, lane % 4 + i * 4);
  }
}

// Folds a segment into the ones before it.
template <int kHeadDim>
__device__ void add_segment(const float (&maxima)[2], const float (&sums)[2], const float (&out)[kHeadDim / 32][4],
                            SegmentFold (&total)[2], float (&result)[kHeadDim / 32][4]) {
  NDS_UNROLL()
  for (int half = 0; half < 2; half++) {
    if (maxima[half] == -infinity()) continue;
    const FoldFactors factors = fold(&total[half], maxima[half], sums[half]);
    NDS_UNROLL()
    for (int n = 0; n < kHeadDim / 32; n++) {
      NDS_UNROLL()
      for (int i = half * 2; i < half * 2 + 2; i++) result[n][i] = folded(result[n][i], out[n][i], factors);
    }
  }
}

template <int kHeadDim, typename Element>
__device__ void set_up(const SplitLaunch& launch, const SplitWork& work, AttentionRow (&rows)[2],
                       uint32_t (&q)[kHeadDim / 16][4], SegmentFold (&total)[2], float (&result)[kHeadDim / 32][4]) {
  const HeadGroup group = head_group(launch.args.heads, work.kv_head);
  NDS_UNROLL()
  for (int half = 0; half < 2; half++) {
    const int row = work.item.tile * kRows + half * 8 + threadIdx.x % 32 / 4;
    rows[half] = attention_row(work.item, group, launch.plan.rows_per_token, launch.args.sliding_window, row);
    total[half] = SegmentFold{};
  }
  load_queries<kHeadDim, Element>(launch.args, rows, q);
  NDS_UNROLL()
  for (int n = 0; n < kHeadDim / 32; n++) {
    NDS_UNROLL()
    for (int i = 0; i < 4; i++) result[n][i] = 0;
  }
}

// K of the next work is in flight while p v of the current one is computed, V of the next while its scores are
// computed.
template <int kHeadDim, typename Element>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor<Element>)
    split_attention_kernel(SplitLaunch launch) {
  simt::wait_for_previous();
  simt::SharedCarver carver;
  SplitShared<Element> shared;
  shared.keys = carver.take<Element>(kSegment * kHeadDim);
  shared.values = carver.take<Element>(kSegment * kHeadDim);
  shared.weights = carver.take<__nv_bfloat16>(kRows * kWeightStride);
  shared.maxima = carver.take<float>(kWarps * kRows);
  shared.sums = carver.take<float>(kWarps * kRows * 4);
  shared.is_last = carver.take<int>(1);
  shared.ticket = carver.take<uint32_t>(1);
  const int warp = threadIdx.x / 32;
  const uint8_t* const keys = launch.args.kv.base;
  const uint8_t* const values = keys + launch.args.kv.panel_bytes();

  SplitWork work;
  AttentionRow rows[2];
  uint32_t q[kHeadDim / 16][4];
  SegmentFold total[2];
  float result[kHeadDim / 32][4];
  KeyScales scales = {};
  bool has_work = load_work(launch, static_cast<int>(blockIdx.x), &work);
  int next_index = static_cast<int>(blockIdx.x + gridDim.x);
  if (has_work) {
    const int block = lane_block(launch, work), offset = lane_offset<Element>(launch, work, block);
    scales = lane_scales<Element>(launch, work, block);
    load_rows<kHeadDim, kWarpKeys>(shared.keys, warp * kWarpKeys, keys, offset);
    simt::cp_async_commit();
    load_rows<kHeadDim, kWarpKeys>(shared.values, warp * kWarpKeys, values, offset);
    simt::cp_async_commit();
  }
  while (has_work) {
    set_up<kHeadDim, Element>(launch, work, rows, q, total, result);
    const bool draws = next_index < num_work(launch);
    if (draws && threadIdx.x == 0) *shared.ticket = draw_ticket(launch);
    SplitWork done;
    do {
      SplitWork next = work;
      has_work = next_work(launch, next_index, &next);
      const int next_block = has_work ? lane_block(launch, next) : -1;
      simt::cp_async_wait<1>();
      __syncthreads();  // K is there
      float scores[kWarpKeys / 8][4] = {};
      score<kHeadDim>(shared, scales, q, rows, work.segment * kSegment, scores);
      share_maxima(shared, scores);
      __syncthreads();  // maxima are there, K is free
      const int offset = lane_offset<Element>(launch, next, next_block);
      const KeyScales next_scales = lane_scales<Element>(launch, next, next_block);
      if (has_work) load_rows<kHeadDim, kWarpKeys>(shared.keys, warp * kWarpKeys, keys, offset);
      simt::cp_async_commit();

      float maxima[2], sums[2], out[kHeadDim / 32][4] = {};
      join_maxima(shared, launch.scale, maxima);
      exponentiate(shared, scales, launch.scale, maxima, scores);
      simt::cp_async_wait<1>();
      __syncthreads();  // p, sums and V are there
      join_sums(shared, sums);
      multiply_values<kHeadDim>(shared, out);
      __syncthreads();  // V, p and sums are free
      if (has_work) load_rows<kHeadDim, kWarpKeys>(shared.values, warp * kWarpKeys, values, offset);
      simt::cp_async_commit();

      if (work.item.partial >= 0)
        write_partials<kHeadDim, Element>(launch, work, maxima, sums, out);
      else
        add_segment<kHeadDim>(maxima, sums, out, total, result);
      done = work;
      work = next;
      scales = next_scales;
    } while (has_work && work.index == done.index);
    if (draws) {
      next_index = static_cast<int>(2 * gridDim.x + *shared.ticket);
      if (threadIdx.x == 0) put_back_tickets(launch, *shared.ticket);
    }
    __syncthreads();  // the ticket is read, partial results are written
    if (done.item.partial >= 0)
      join_segments<kHeadDim>(launch, done, shared.is_last);
    else
      write_result<kHeadDim, Element>(launch, done, total, result);
  }
  simt::cp_async_wait<0>();
}

template <int kHeadDim, typename Element>
void launch_kernel(const SplitLaunch& launch, int64_t num_items, LaunchPlace place) {
  const int64_t resident = num_resident_blocks(kBlocksPerMultiprocessor<Element>);
  const unsigned num_blocks = static_cast<unsigned>(num_items < resident ? num_items : resident);
  const simt::LaunchShape shape{dim3(num_blocks), dim3(kThreads), kSharedBytes<kHeadDim, Element>, place};
  check(simt::launch(split_attention_kernel<kHeadDim, Element>, shape, launch), "split_attention_kernel");
}

}  // namespace

void launch_split_attention(const AttentionArgs& args, const AttentionPlan& plan, LaunchPlace place) {
  const AttentionBatch& batch = args.batch;
  SplitLaunch launch{args, plan, {}, args.scale * kLog2E};
  launch.partials.sums = static_cast<float*>(args.scratch);
  launch.partials.norms = reinterpret_cast<float2*>(
      static_cast<uint8_t*>(args.scratch) + (int64_t{plan.partial_rows} * args.kv.head_dim * 4 + 255) / 256 * 256);
  const int64_t seqs = batch.max_seqs < batch.max_tokens ? batch.max_seqs : batch.max_tokens;
  const int64_t rows = int64_t{batch.max_query_len} * plan.rows_per_token;
  const int64_t tiles =
      (rows + kRows - 1) / kRows < plan.max_split_tiles ? (rows + kRows - 1) / kRows : plan.max_split_tiles;
  const int64_t segments = (batch.max_context_len + kSegment - 1) / kSegment;
  const int64_t items = seqs * tiles * segments * args.heads.num_kv_heads;
  if (items == 0) return;
  const bool is_int8 = args.kv.kv_dtype == KvDtype::int8;
  const auto launch_kernel_of = args.kv.head_dim == 64
                                    ? (is_int8 ? launch_kernel<64, int8_t> : launch_kernel<64, __nv_bfloat16>)
                                : is_int8 ? launch_kernel<128, int8_t>
                                          : launch_kernel<128, __nv_bfloat16>;
  launch_kernel_of(launch, items, place);
}

}  // namespace nds::cuda
