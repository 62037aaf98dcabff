// Paged attention: sizes, the lists of work of a pass, and the choice of kernels.
#include "attention_plan.h"
#include "cuda/check.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__host__ __device__ int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t aligned(int64_t bytes) { return divide_up(bytes, 256) * 256; }

// The tiles, segments and partial rows that a sequence needs.
struct Demand {
  int split_tiles = 0, prefill_tiles = 0, segments = 0;
  int partial_rows = 0;  // to split it, capped at plan.partial_rows + 1
};

__device__ Demand demand_of(const AttentionBatch& batch, const AttentionPlan& plan, int num_kv_heads, int seq) {
  Demand demand;
  const int query_len = batch.cu_query_lens[seq + 1] - batch.cu_query_lens[seq];
  const int rows = query_len * plan.rows_per_token;
  if (query_len <= 0) return demand;
  demand.segments = static_cast<int>(divide_up(batch.context_lens[seq], kSegment));
  if (query_len > 1 && rows > kMaxSplitRows) {
    demand.prefill_tiles = static_cast<int>(divide_up(rows, kPrefillTileRows));
    return demand;
  }
  demand.split_tiles = static_cast<int>(divide_up(rows, kSplitTileRows));
  const int64_t wanted = demand.segments > 1 ? int64_t{demand.segments} * num_kv_heads * rows : 0;
  demand.partial_rows = static_cast<int>(wanted > plan.partial_rows ? plan.partial_rows + 1 : wanted);
  return demand;
}

// Sum of value over the threads before this one, plus *base; then adds the sum over all threads to *base. shared:
// [kWarps].
__device__ int exclusive_sum(int value, int* shared, int* base) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int sum = value;
  for (int i = 1; i < 32; i *= 2) {
    const int other = __shfl_up_sync(kAllLanes, sum, i);
    if (lane >= i) sum += other;
  }
  if (lane == 31) shared[warp] = sum;
  __syncthreads();
  int before = *base, total = 0;
  for (int w = 0; w < kWarps; w++) {
    if (w < warp) before += shared[w];
    total += shared[w];
  }
  *base += total;
  __syncthreads();
  return before + sum - value;
}

// One block. Partial rows are assigned to sequences in order while they last; later sequences are not split.
__global__ void __launch_bounds__(kThreads)
    plan_attention_kernel(AttentionBatch batch, AttentionPlan plan, int num_kv_heads) {
  SIMT_SHARED_ARRAY(int, sums, kWarps);
  SIMT_SHARED_ARRAY(int, first_split, kThreads);
  SIMT_SHARED_ARRAY(int, first_prefill, kThreads);
  SIMT_SHARED_ARRAY(int, partials, kThreads);
  simt::wait_for_previous();
  const int num_seqs = *batch.num_seqs, thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  for (int i = thread; i < num_seqs * plan.max_split_tiles * num_kv_heads; i += kThreads) plan.counters[i] = 0;
  int num_rows = 0, num_split = 0, num_prefill = 0;
  for (int begin = 0; begin < num_seqs; begin += kThreads) {
    const Demand demand = begin + thread < num_seqs ? demand_of(batch, plan, num_kv_heads, begin + thread) : Demand{};
    const int first_row = exclusive_sum(demand.partial_rows, sums, &num_rows);
    num_rows = min(num_rows, plan.partial_rows + 1);
    const bool is_split = demand.partial_rows > 0 && first_row + demand.partial_rows <= plan.partial_rows;
    partials[thread] = is_split ? first_row : -1;
    first_split[thread] = exclusive_sum(demand.split_tiles * (is_split ? demand.segments : 1), sums, &num_split);
    first_prefill[thread] = exclusive_sum(demand.prefill_tiles, sums, &num_prefill);
    __syncthreads();
    for (int i = warp; i < kThreads && begin + i < num_seqs; i += kWarps) {
      const int seq = begin + i;
      const Demand wanted = demand_of(batch, plan, num_kv_heads, seq);
      AttentionItem item;
      item.seq = seq;
      item.first_token = batch.cu_query_lens[seq];
      item.query_len = batch.cu_query_lens[seq + 1] - item.first_token;
      item.context_len = batch.context_lens[seq];
      item.table = batch.first_blocks[seq];
      item.partial = partials[i];
      const int segments = partials[i] < 0 ? 1 : wanted.segments;
      for (int j = lane; j < wanted.split_tiles * segments; j += 32) {
        item.tile = j % wanted.split_tiles;
        item.segment = partials[i] < 0 ? -1 : j / wanted.split_tiles;
        plan.split_items[first_split[i] + j] = item;
      }
      item.segment = -1;
      for (item.tile = lane; item.tile < wanted.prefill_tiles; item.tile += 32) {
        plan.prefill_items[first_prefill[i] + item.tile] = item;
      }
    }
    __syncthreads();
  }
  if (thread == 0) {
    *plan.ticket = 0;
    plan.counts[0] = num_split;
    plan.counts[1] = num_prefill;
  }
}

int64_t partial_rows_of(const AttentionLimits& limits, int rows_per_token) {
  const int64_t segments = divide_up(limits.max_model_len, kSegment);
  if (segments <= 1) return 0;
  const int64_t rows = rows_per_token > kMaxSplitRows ? rows_per_token : kMaxSplitRows;
  const int64_t tokens = int64_t{limits.max_tokens} * rows_per_token;
  const int64_t most = rows * limits.max_seqs < tokens ? rows * limits.max_seqs : tokens;
  const int64_t wanted = most * limits.num_kv_heads * segments;
  const int64_t affordable = limits.max_partial_bytes / (4 * (limits.head_dim + 2));
  return wanted < affordable ? wanted : affordable;
}

// Points the plan into memory and returns how many bytes it takes.
int64_t lay_out(const AttentionLimits& limits, void* memory, AttentionPlan* plan) {
  const int64_t seqs = limits.max_seqs;
  plan->rows_per_token = limits.num_heads < limits.group_size ? limits.num_heads : limits.group_size;
  plan->max_seqs = limits.max_seqs;
  const int rows = plan->rows_per_token > kMaxSplitRows ? plan->rows_per_token : kMaxSplitRows;
  plan->max_split_tiles = static_cast<int>(divide_up(rows, kSplitTileRows));
  plan->partial_rows = static_cast<int>(partial_rows_of(limits, plan->rows_per_token));
  const int64_t tiles = seqs + int64_t{limits.max_tokens} * plan->rows_per_token / kSplitTileRows;
  // A split item has at least one partial row for each KV head.
  plan->max_split_items = static_cast<int>(tiles + plan->partial_rows / limits.num_kv_heads);
  plan->max_prefill_items =
      static_cast<int>(seqs + int64_t{limits.max_tokens} * plan->rows_per_token / kPrefillTileRows);
  int64_t used = 0;
  const auto take = [&](int64_t bytes) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(memory) + static_cast<uintptr_t>(used);
    used += aligned(bytes);
    return at;
  };
  plan->counts = reinterpret_cast<int32_t*>(take(8));
  plan->split_items = reinterpret_cast<AttentionItem*>(take(plan->max_split_items * int64_t{sizeof(AttentionItem)}));
  plan->prefill_items =
      reinterpret_cast<AttentionItem*>(take(plan->max_prefill_items * int64_t{sizeof(AttentionItem)}));
  plan->ticket = reinterpret_cast<uint32_t*>(take(4));
  plan->counters = reinterpret_cast<uint32_t*>(take(seqs * plan->max_split_tiles * limits.num_kv_heads * 4));
  return used;
}

}  // namespace

int num_resident_blocks(int blocks_per_multiprocessor) {
#if defined(__CUDACC__)
  static const int num_multiprocessors = [] {
    int device = 0, count = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
    return count;
  }();
#else
  const int num_multiprocessors = 2;
#endif
  return num_multiprocessors * blocks_per_multiprocessor;
}

bool attention_on_tensor_cores(const AttentionLimits& limits) {
  return limits.dtype == DType::bf16 && (limits.head_dim == 64 || limits.head_dim == 128);
}

AttentionPlan attention_plan(const AttentionLimits& limits, void* memory) {
  AttentionPlan plan;
  lay_out(limits, memory, &plan);
  return plan;
}

int64_t attention_plan_bytes(const AttentionLimits& limits) {
  AttentionPlan plan;
  return attention_on_tensor_cores(limits) ? lay_out(limits, nullptr, &plan) : 0;
}

int64_t attention_scratch_bytes(const AttentionLimits& limits) {
  if (!attention_on_tensor_cores(limits)) return 0;
  const int64_t rows = attention_plan(limits, nullptr).partial_rows;
  return aligned(rows * limits.head_dim * 4) + aligned(rows * 8);
}

void plan_attention(const AttentionBatch& batch, const AttentionLimits& limits, LaunchPlace place) {
  if (!attention_on_tensor_cores(limits)) return;
  const simt::LaunchShape shape{dim3(1), dim3(kThreads), 0, place};
  check(simt::launch(plan_attention_kernel, shape, batch, attention_plan(limits, batch.plan), limits.num_kv_heads),
        "plan_attention_kernel");
}

void paged_attention(const AttentionArgs& args, const AttentionLimits& limits, LaunchPlace place) {
  if (!attention_on_tensor_cores(limits)) return launch_plain_attention(args, place);
  const AttentionPlan plan = attention_plan(limits, args.batch.plan);
  launch_split_attention(args, plan, place);
  const int max_rows = args.batch.max_query_len * plan.rows_per_token;
  if (args.batch.max_query_len > 1 && max_rows > kMaxSplitRows) launch_prefill_attention(args, plan, place);
}

}  // namespace nds::cuda
