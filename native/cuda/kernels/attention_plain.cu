// Paged attention for every type and head size, a warp per (token, head): plain loops, no tensor cores.
#include "attention_plan.h"
#include "cuda/check.h"
#include "cuda/math.h"

namespace nds::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kMaxHeadDim = 256;
constexpr unsigned kAllLanes = 0xffffffffu;

struct F32 {
  using Activation = float;
  using Element = float;
  static constexpr bool kIsInt8 = false;
};
struct Bf16 {
  using Activation = __nv_bfloat16;
  using Element = __nv_bfloat16;
  static constexpr bool kIsInt8 = false;
};
template <typename T>
struct Int8 {
  using Activation = T;
  using Element = int8_t;
  static constexpr bool kIsInt8 = true;
};

__device__ float to_float(float value) { return value; }
__device__ float to_float(int8_t value) { return static_cast<float>(value); }
__device__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ void store(float* out, float value) { *out = value; }
__device__ void store(__nv_bfloat16* out, float value) { *out = __float2bfloat16(value); }
__device__ float rounded(float value, float) { return value; }
__device__ float rounded(float value, __nv_bfloat16) { return __bfloat162float(__float2bfloat16(value)); }

__device__ float warp_max(float value) {
  for (int i = 16; i > 0; i /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, i));
  return value;
}
__device__ float warp_sum(float value) {
  for (int i = 16; i > 0; i /= 2) value = __fadd_rn(value, __shfl_xor_sync(kAllLanes, value, i));
  return value;
}

// The last sequence that begins at or before token.
__device__ int seq_of(const int32_t* cu_query_lens, int num_seqs, int token) {
  int low = 0, high = num_seqs - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (cu_query_lens[middle] <= token)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

// The tile of the block of a key, for one KV head: K, then V and scales as KvCache lays them out.
__device__ const uint8_t* tile_of(const AttentionArgs& args, const int32_t* table, int key, int kv_head) {
  return args.kv.tile(table[key / args.kv.block_size], kv_head);
}

// One row (token, head), by a warp: queries q [head_dim] and probabilities p [kSegment] in its shared memory.
template <typename Kv>
__device__ void attend(const AttentionArgs& args, int token, int head, float* q, float* p) {
  using Activation = typename Kv::Activation;
  using Element = typename Kv::Element;
  const AttentionBatch& batch = args.batch;
  const int lane = threadIdx.x % 32, head_dim = args.kv.head_dim, block_size = args.kv.block_size;
  const int seq = seq_of(batch.cu_query_lens, *batch.num_seqs, token);
  const int position = batch.context_lens[seq] - (batch.cu_query_lens[seq + 1] - token);
  const int oldest = args.sliding_window > 0 ? max(0, position + 1 - args.sliding_window) : 0;
  const int32_t* table = batch.block_tables + batch.first_blocks[seq];
  const int kv_head = (args.heads.first_head + head) / args.heads.group_size - args.heads.first_kv_head;
  const Activation* query = static_cast<const Activation*>(args.q) + int64_t{token} * args.ldq + head * head_dim;
  for (int d = lane; d < head_dim; d += 32) q[d] = to_float(query[d]);
  __syncwarp();

  float total_max = -infinity(), total_sum = 0, total[kMaxHeadDim / 32] = {};
  for (int begin = oldest / kSegment * kSegment; begin <= position; begin += kSegment) {
    const int first = max(begin, oldest), end = min(begin + kSegment, position + 1);
    float scores[kSegment / 32], value_scales[kSegment / 32], largest = -infinity();
    for (int j = 0; j < kSegment / 32; j++) {
      const int key = begin + j * 32 + lane;
      scores[j] = -infinity();
      value_scales[j] = 1;
      if (key < first || key >= end) continue;
      const uint8_t* tile = tile_of(args, table, key, kv_head);
      const Element* k = reinterpret_cast<const Element*>(tile) + int64_t{key % block_size} * head_dim;
      float dot = 0;
      for (int d = 0; d < head_dim; d++) dot = __fmaf_rn(q[d], to_float(k[d]), dot);
      scores[j] = __fmul_rn(dot, args.scale);
      if (Kv::kIsInt8) {
        const float* scales = reinterpret_cast<const float*>(tile + 2 * args.kv.panel_bytes()) + key % block_size;
        scores[j] = __fmul_rn(scores[j], scales[0]);
        value_scales[j] = scales[block_size];
      }
      largest = fmaxf(largest, scores[j]);
    }
    largest = warp_max(largest);
    float sum = 0;
    for (int j = 0; j < kSegment / 32; j++) {
      const int key = begin + j * 32 + lane;
      const bool is_seen = first <= key && key < end;
      const float weight = is_seen ? exact_exp(__fsub_rn(scores[j], largest)) : 0.0f;
      sum = __fadd_rn(sum, weight);
      p[j * 32 + lane] = rounded(Kv::kIsInt8 ? __fmul_rn(weight, value_scales[j]) : weight, Activation{});
    }
    sum = warp_sum(sum);
    __syncwarp();

    const float new_max = fmaxf(total_max, largest);
    const float old_factor = exact_exp(__fsub_rn(total_max, new_max)), factor = exact_exp(__fsub_rn(largest, new_max));
    total_sum = __fmaf_rn(total_sum, old_factor, __fmul_rn(sum, factor));
    total_max = new_max;
    float out[kMaxHeadDim / 32] = {};
    for (int key = first; key < end; key++) {
      const uint8_t* panel = tile_of(args, table, key, kv_head) + args.kv.panel_bytes();
      const Element* v = reinterpret_cast<const Element*>(panel) + int64_t{key % block_size} * head_dim;
      const float weight = p[key - begin];
      NDS_UNROLL()
      for (int i = 0; i < kMaxHeadDim / 32; i++) {
        if (i * 32 + lane < head_dim) out[i] = __fmaf_rn(weight, to_float(v[i * 32 + lane]), out[i]);
      }
    }
    for (int i = 0; i < kMaxHeadDim / 32; i++) total[i] = __fmaf_rn(total[i], old_factor, __fmul_rn(out[i], factor));
    __syncwarp();  // before p is written again
  }

  Activation* row = static_cast<Activation*>(args.out) + int64_t{token} * args.ld_out;
  NDS_UNROLL()
  for (int i = 0; i < kMaxHeadDim / 32; i++) {
    if (i * 32 + lane < head_dim) store(row + head * head_dim + i * 32 + lane, __fdiv_rn(total[i], total_sum));
  }
  if (head != args.heads.num_heads - 1) return;
  for (int i = args.heads.num_heads * head_dim + lane; i < args.ld_out; i += 32) store(row + i, 0.0f);
}

template <typename Kv>
__global__ void __launch_bounds__(kWarps * 32) plain_attention_kernel(AttentionArgs args) {
  SIMT_SHARED_ARRAY(float, q, kWarps* kMaxHeadDim);
  SIMT_SHARED_ARRAY(float, p, kWarps* kSegment);
  simt::wait_for_previous();
  const int warp = threadIdx.x / 32;
  const int64_t work = int64_t{blockIdx.x} * kWarps + warp;
  const int token = static_cast<int>(work / args.heads.num_heads), head = static_cast<int>(work % args.heads.num_heads);
  const int num_seqs = *args.batch.num_seqs;
  if (num_seqs == 0 || token >= args.batch.cu_query_lens[num_seqs]) return;
  attend<Kv>(args, token, head, q + warp * kMaxHeadDim, p + warp * kSegment);
}

}  // namespace

void launch_plain_attention(const AttentionArgs& args, LaunchPlace place) {
  const int64_t work = int64_t{args.batch.max_tokens} * args.heads.num_heads;
  const simt::LaunchShape shape{dim3(static_cast<unsigned>((work + kWarps - 1) / kWarps)), dim3(kWarps * 32), 0, place};
  const bool is_bf16 = args.kv.dtype == DType::bf16;
  const auto kernel =
      args.kv.kv_dtype == KvDtype::int8
          ? (is_bf16 ? plain_attention_kernel<Int8<__nv_bfloat16>> : plain_attention_kernel<Int8<float>>)
      : is_bf16 ? plain_attention_kernel<Bf16>
                : plain_attention_kernel<F32>;
  check(simt::launch(kernel, shape, args), "plain_attention_kernel");
}

}  // namespace nds::cuda
