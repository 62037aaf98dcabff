// Rotary embedding: cos and sin of a step's positions, and the rotation of q and k on their way to attention and to the
// cache.
#include "cuda/check.h"
#include "cuda/kernels.h"
#include "cuda/kernels/block_sum.h"
#include "cuda/kernels/element.h"
#include "cuda/math.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxPairs = 8;  // pairs of dimensions per lane: heads of up to 512 dimensions

// sin and cos of x >= 0 in double precision, operation by operation those of cpu/kernels/rope.isa.cc.
__device__ void sin_cos(double x, double& sin, double& cos) {
  const double q = static_cast<double>(static_cast<long long>(__dadd_rn(__dmul_rn(x, 0.63661977236758138), 0.5)));
  double r = __dsub_rn(x, __dmul_rn(q, 1.57079632673412561417));
  r = __dsub_rn(r, __dmul_rn(q, 6.07710050630396597660e-11));
  r = __dsub_rn(r, __dmul_rn(q, 2.02226624879595063154e-21));
  const double z = __dmul_rn(r, r);
  double s = -1.0 / 1307674368000;
  s = __dadd_rn(__dmul_rn(s, z), 1.0 / 6227020800);
  s = __dsub_rn(__dmul_rn(s, z), 1.0 / 39916800);
  s = __dadd_rn(__dmul_rn(s, z), 1.0 / 362880);
  s = __dsub_rn(__dmul_rn(s, z), 1.0 / 5040);
  s = __dadd_rn(__dmul_rn(s, z), 1.0 / 120);
  s = __dsub_rn(__dmul_rn(s, z), 1.0 / 6);
  s = __dadd_rn(r, __dmul_rn(r, __dmul_rn(z, s)));
  double c = 1.0 / 20922789888000;
  c = __dsub_rn(__dmul_rn(c, z), 1.0 / 87178291200);
  c = __dadd_rn(__dmul_rn(c, z), 1.0 / 479001600);
  c = __dsub_rn(__dmul_rn(c, z), 1.0 / 3628800);
  c = __dadd_rn(__dmul_rn(c, z), 1.0 / 40320);
  c = __dsub_rn(__dmul_rn(c, z), 1.0 / 720);
  c = __dadd_rn(__dmul_rn(c, z), 1.0 / 24);
  c = __dadd_rn(__dsub_rn(1.0, __dmul_rn(z, 0.5)), __dmul_rn(__dmul_rn(z, z), c));
  const int quadrant = static_cast<int>(static_cast<long long>(q) & 3);
  sin = quadrant == 0 ? s : quadrant == 1 ? c : quadrant == 2 ? -s : -c;
  cos = quadrant == 0 ? c : quadrant == 1 ? -s : quadrant == 2 ? -c : s;
}

__global__ void __launch_bounds__(kThreads) rope_table_kernel(RopeTableArgs args) {
  simt::wait_for_previous();
  const int64_t count = static_cast<int64_t>(args.rows) * args.half_dim;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const float position = static_cast<float>(args.positions[i / args.half_dim]);
    double sin, cos;
    sin_cos(__fmul_rn(position, args.inv_freq[i % args.half_dim]), sin, cos);
    args.cos[i] = __fmul_rn(static_cast<float>(cos), args.scale);
    args.sin[i] = __fmul_rn(static_cast<float>(sin), args.scale);
  }
}

// One head in the registers of a warp: a lane holds dimensions lane + 32 j of the lower half and their partners in the
// upper half.
struct Head {
  float lower[kMaxPairs], upper[kMaxPairs];
};

__device__ void load_head(Head& head, const float* from, int half, int lane) {
  for (int j = 0; j < kMaxPairs; j++) {
    const int i = lane + 32 * j;
    head.lower[j] = i < half ? from[i] : 0;
    head.upper[j] = i < half ? from[half + i] : 0;
  }
}

__device__ void norm_head(Head& head, const float* weight, float eps, int half, int lane) {
  float squares = 0;
  for (int j = 0; j < kMaxPairs; j++) {
    squares = __fmaf_rn(head.lower[j], head.lower[j], squares);
    squares = __fmaf_rn(head.upper[j], head.upper[j], squares);
  }
  const float mean = __fdiv_rn(warp_sum(squares), static_cast<float>(half * 2));
  const float scale = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, eps)));
  for (int j = 0; j < kMaxPairs; j++) {
    const int i = lane + 32 * j;
    if (i >= half) continue;
    head.lower[j] = __fmul_rn(__fmul_rn(head.lower[j], scale), weight[i]);
    head.upper[j] = __fmul_rn(__fmul_rn(head.upper[j], scale), weight[half + i]);
  }
}

__device__ void rotate_head(Head& head, const float* cos, const float* sin, int half, int lane) {
  for (int j = 0; j < kMaxPairs; j++) {
    const int i = lane + 32 * j;
    if (i >= half) continue;
    const float a = head.lower[j], b = head.upper[j], c = cos[i], s = sin[i];
    head.lower[j] = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
    head.upper[j] = __fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s));
  }
}

__device__ void store_head(const Head& head, void* to, int64_t offset, DType dtype, int half, int lane) {
  for (int j = 0; j < kMaxPairs; j++) {
    const int i = lane + 32 * j;
    if (i >= half) continue;
    store_activation(to, offset + i, head.lower[j], dtype);
    store_activation(to, offset + half + i, head.upper[j], dtype);
  }
}

__device__ float warp_max(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

__device__ int8_t quantize(float x, float divisor) {
  return static_cast<int8_t>(__float2int_rn(fminf(fmaxf(__fdiv_rn(x, divisor), -127.0f), 127.0f)));
}

// scale = max |x| / 127, NaN where any element is not finite.
__device__ void store_int8(const Head& head, int8_t* to, float* scale_out, int half, int lane) {
  float most = 0, not_finite = 0;
  for (int j = 0; j < kMaxPairs; j++) {
    most = fmaxf(most, fmaxf(fabsf(head.lower[j]), fabsf(head.upper[j])));
    not_finite = __fadd_rn(not_finite, __fadd_rn(__fmul_rn(head.lower[j], 0.0f), __fmul_rn(head.upper[j], 0.0f)));
  }
  const float scale = __fadd_rn(__fdiv_rn(warp_max(most), 127.0f), warp_sum(not_finite));
  const float divisor = scale > 0 ? scale : 1.0f;
  for (int j = 0; j < kMaxPairs; j++) {
    const int i = lane + 32 * j;
    if (i >= half) continue;
    to[i] = quantize(head.lower[j], divisor);
    to[half + i] = quantize(head.upper[j], divisor);
  }
  if (lane == 0) *scale_out = scale;
}

__device__ void store_kv(const Head& head, const KvCache& kv, int64_t slot, int kv_head, bool is_value, int half,
                         int lane) {
  const int64_t offset = slot % kv.block_size;
  uint8_t* const tile = kv.tile(slot / kv.block_size, kv_head);
  uint8_t* const panel = tile + (is_value ? kv.panel_bytes() : 0);
  if (kv.kv_dtype == KvDtype::int8) {
    float* const scales = reinterpret_cast<float*>(tile + 2 * kv.panel_bytes()) + (is_value ? kv.block_size : 0);
    store_int8(head, reinterpret_cast<int8_t*>(panel) + offset * kv.head_dim, scales + offset, half, lane);
  } else {
    store_head(head, panel, offset * kv.head_dim, kv.dtype, half, lane);
  }
}

__device__ void scale_query(Head& head, const RopeAndStoreArgs& args, int64_t row) {
  if (args.query_scales == nullptr) return;
  // Rows that only fill a graph's bucket may have any position.
  const int index = args.positions[row] / args.query_length, last = args.num_query_scales - 1;
  const float scale = args.query_scales[index < 0 ? 0 : index > last ? last : index];
  for (int j = 0; j < kMaxPairs; j++) {
    head.lower[j] = __fmul_rn(head.lower[j], scale);
    head.upper[j] = __fmul_rn(head.upper[j], scale);
  }
}

// Grid (rows, groups of heads), one warp per head: queries first, then keys, then values.
__global__ void __launch_bounds__(kThreads) rope_and_store_kernel(RopeAndStoreArgs args) {
  simt::wait_for_previous();
  const int64_t row = blockIdx.x, slot = args.kv_slots[row];
  const int lane = threadIdx.x % 32, half = args.heads.head_dim / 2;
  const int num_heads = args.heads.num_heads, num_kv_heads = args.heads.num_kv_heads;
  const float* const qkv = args.qkv + row * args.ld;
  const float* const cos = args.cos + row * half;
  const float* const sin = args.sin + row * half;
  Head head;
  for (int h = blockIdx.y * kWarps + threadIdx.x / 32; h < num_heads + 2 * num_kv_heads; h += gridDim.y * kWarps) {
    const bool is_query = h < num_heads, is_value = h >= num_heads + num_kv_heads;
    const int kv_head = is_value ? h - num_heads - num_kv_heads : h - num_heads;
    const int offset = is_query   ? args.heads.q_offset + h * args.heads.head_dim
                       : is_value ? args.heads.v_offset + kv_head * args.heads.head_dim
                                  : args.heads.k_offset + kv_head * args.heads.head_dim;
    load_head(head, qkv + offset, half, lane);
    if (!is_value) {
      if (args.q_weight != nullptr) norm_head(head, is_query ? args.q_weight : args.k_weight, args.eps, half, lane);
      rotate_head(head, cos, sin, half, lane);
    }
    if (is_query) {
      scale_query(head, args, row);
      store_head(head, args.q_out, row * args.ld_q + static_cast<int64_t>(h) * args.heads.head_dim, args.kv.dtype, half,
                 lane);
    } else if (slot >= 0) {
      store_kv(head, args.kv, slot, kv_head, is_value, half, lane);
    }
  }
  if (blockIdx.y == 0) {
    for (int64_t i = static_cast<int64_t>(num_heads) * args.heads.head_dim + threadIdx.x; i < args.ld_q; i += kThreads)
      store_activation(args.q_out, row * args.ld_q + i, 0, args.kv.dtype);
  }
}

// A thread copies the same 16 bytes of each block, in list order, so that no copy depends on another thread.
__global__ void __launch_bounds__(kThreads) copy_blocks_kernel(CopyBlocksArgs args) {
  const int64_t bytes = args.kv.block_stride / 16;
  uint8_t* const layer = args.kv.base + blockIdx.y * args.layer_stride;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < bytes;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    for (int pair = 0; pair < args.num_pairs; pair++) {
      const uint4* const from = reinterpret_cast<const uint4*>(layer + args.pairs[pair * 2] * args.kv.block_stride);
      uint4* const to = reinterpret_cast<uint4*>(layer + args.pairs[pair * 2 + 1] * args.kv.block_stride);
      to[i] = from[i];
    }
  }
}

}  // namespace

void rope_table(const RopeTableArgs& args, LaunchPlace place) {
  if (args.rows == 0) return;
  const int64_t blocks = (static_cast<int64_t>(args.rows) * args.half_dim + kThreads - 1) / kThreads;
  const simt::LaunchShape shape{dim3(static_cast<unsigned>(blocks > 4096 ? 4096 : blocks)), dim3(kThreads), 0, place};
  check(simt::launch(rope_table_kernel, shape, args), "rope_table");
}

void rope_and_store(const RopeAndStoreArgs& args, LaunchPlace place) {
  if (args.rows == 0) return;
  if (args.heads.head_dim > 64 * kMaxPairs)
    throw Error("ERR_UNSUPPORTED",
                "Expected heads of at most " + std::to_string(64 * kMaxPairs) + " dimensions on CUDA");
  const int heads = args.heads.num_heads + 2 * args.heads.num_kv_heads;
  // With few rows, the heads of a row are spread over blocks.
  const int by_head = args.rows >= 64 ? 1 : (heads + kWarps - 1) / kWarps;
  const simt::LaunchShape shape{dim3(args.rows, by_head), dim3(kThreads), 0, place};
  check(simt::launch(rope_and_store_kernel, shape, args), "rope_and_store");
}

void copy_blocks(const CopyBlocksArgs& args, cudaStream_t stream) {
  if (args.num_pairs == 0) return;
  const int64_t blocks = (args.kv.block_stride / 16 + kThreads - 1) / kThreads;
  const simt::LaunchShape shape{dim3(static_cast<unsigned>(blocks > 256 ? 256 : blocks), args.num_layers),
                                dim3(kThreads), 0, stream};
  check(simt::launch(copy_blocks_kernel, shape, args), "copy_blocks");
}

}  // namespace nds::cuda
