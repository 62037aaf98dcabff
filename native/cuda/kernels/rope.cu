// Rotary embedding: cos and sin of a step's positions, and the rotation of q and k on their way to attention and to the
// cache.
#include "cuda/check.h"
#include "cuda/kernels.h"
#include "cuda/kernels/block_sum.h"
#include "cuda/kernels/element.h"
#include "cuda/kernels/unroll.h"
#include "cuda/math.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxPairs = 8;  // pairs of dimensions per lane: heads of up to 512 dimensions
constexpr int kManyRows = 64, kHeadsOfMany = 4;

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

// One head in the registers of a warp, half <= 32 * kPairs: a lane holds dimensions lane + 32 j of the lower half and
// their partners in the upper half. Weights of a norm, and cos (lower) and sin (upper), lie alike.
template <int kPairs>
struct Head {
  float lower[kPairs], upper[kPairs];

  __device__ void load(const float* lower_from, const float* upper_from, int half, int lane) {
    NDS_UNROLL()
    for (int j = 0; j < kPairs; j++) {
      const int i = lane + 32 * j;
      lower[j] = i < half ? lower_from[i] : 0;
      upper[j] = i < half ? upper_from[i] : 0;
    }
  }
};

template <int kPairs>
__device__ void norm_head(Head<kPairs>& head, const Head<kPairs>& weight, float eps, int half) {
  float squares = 0;
  NDS_UNROLL()
  for (int j = 0; j < kPairs; j++) {
    squares = __fmaf_rn(head.lower[j], head.lower[j], squares);
    squares = __fmaf_rn(head.upper[j], head.upper[j], squares);
  }
  const float mean = __fdiv_rn(warp_sum(squares), static_cast<float>(half * 2));
  const float scale = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, eps)));
  NDS_UNROLL()
  for (int j = 0; j < kPairs; j++) {
    head.lower[j] = __fmul_rn(__fmul_rn(head.lower[j], scale), weight.lower[j]);
    head.upper[j] = __fmul_rn(__fmul_rn(head.upper[j], scale), weight.upper[j]);
  }
}

template <int kPairs>
__device__ void rotate_head(Head<kPairs>& head, const Head<kPairs>& cos_sin) {
  NDS_UNROLL()
  for (int j = 0; j < kPairs; j++) {
    const float a = head.lower[j], b = head.upper[j], c = cos_sin.lower[j], s = cos_sin.upper[j];
    head.lower[j] = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
    head.upper[j] = __fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s));
  }
}

template <int kPairs, typename T, typename Convert>
__device__ void store_pairs(const Head<kPairs>& head, T* to, int half, int lane, Convert convert) {
  NDS_UNROLL()
  for (int j = 0; j < kPairs; j++) {
    const int i = lane + 32 * j;
    if (i >= half) continue;
    to[i] = convert(head.lower[j]);
    to[half + i] = convert(head.upper[j]);
  }
}

template <int kPairs>
__device__ void store_head(const Head<kPairs>& head, void* to, int64_t offset, DType dtype, int half, int lane) {
  if (dtype == DType::f32) {
    store_pairs(head, static_cast<float*>(to) + offset, half, lane, [](float x) { return x; });
  } else {
    store_pairs(head, static_cast<__nv_bfloat16*>(to) + offset, half, lane,
                [](float x) { return __float2bfloat16(x); });
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
template <int kPairs>
__device__ void store_int8(const Head<kPairs>& head, int8_t* to, float* scale_out, int half, int lane) {
  float most = 0, not_finite = 0;
  NDS_UNROLL()
  for (int j = 0; j < kPairs; j++) {
    most = fmaxf(most, fmaxf(fabsf(head.lower[j]), fabsf(head.upper[j])));
    not_finite = __fadd_rn(not_finite, __fadd_rn(__fmul_rn(head.lower[j], 0.0f), __fmul_rn(head.upper[j], 0.0f)));
  }
  const float scale = __fadd_rn(__fdiv_rn(warp_max(most), 127.0f), warp_sum(not_finite));
  const float divisor = scale > 0 ? scale : 1.0f;
  store_pairs(head, to, half, lane, [divisor](float x) { return quantize(x, divisor); });
  if (lane == 0) *scale_out = scale;
}

// Where a token lies in the cache.
struct Place {
  int64_t block;
  int offset;
};

template <int kPairs>
__device__ void store_kv(const Head<kPairs>& head, const KvCache& kv, const Place& place, int kv_head, bool is_value,
                         int half, int lane) {
  uint8_t* const tile = kv.tile(place.block, kv_head);
  uint8_t* const panel = tile + (is_value ? kv.panel_bytes() : 0);
  const int64_t first = int64_t{place.offset} * kv.head_dim;
  if (kv.kv_dtype == KvDtype::int8) {
    float* const scales = reinterpret_cast<float*>(tile + 2 * kv.panel_bytes()) + (is_value ? kv.block_size : 0);
    store_int8(head, reinterpret_cast<int8_t*>(panel) + first, scales + place.offset, half, lane);
  } else {
    store_head(head, panel, first, kv.dtype, half, lane);
  }
}

__device__ float query_scale(const RopeAndStoreArgs& args, int64_t row) {
  // Rows that only fill a graph's bucket may have any position.
  const int index = args.positions[row] / args.query_length, last = args.num_query_scales - 1;
  return args.query_scales[index < 0 ? 0 : index > last ? last : index];
}

// Grid (rows, groups of heads), kHeads heads in a row per warp: queries first, then keys, then values. All loads come
// before their uses, so that a warp waits for memory once.
template <int kPairs, int kHeads>
__global__ void __launch_bounds__(kThreads) rope_and_store_kernel(RopeAndStoreArgs args) {
  simt::wait_for_previous();
  const int64_t row = blockIdx.x;
  const int lane = threadIdx.x % 32, half = args.heads.head_dim / 2;
  const int num_heads = args.heads.num_heads, num_kv_heads = args.heads.num_kv_heads;
  const int first = (blockIdx.y * kWarps + threadIdx.x / 32) * kHeads, end = num_heads + 2 * num_kv_heads;
  const bool has_norm = args.q_weight != nullptr;
  const float* const qkv = args.qkv + row * args.ld;
  Head<kPairs> heads[kHeads], weights[kHeads], cos_sin;
  NDS_UNROLL()
  for (int n = 0; n < kHeads; n++) {
    const int h = first + n;
    if (h >= end) continue;
    const bool is_query = h < num_heads, is_value = h >= num_heads + num_kv_heads;
    const int kv_head = is_value ? h - num_heads - num_kv_heads : h - num_heads;
    const float* const from = qkv + (is_query   ? args.heads.q_offset + h * args.heads.head_dim
                                     : is_value ? args.heads.v_offset + kv_head * args.heads.head_dim
                                                : args.heads.k_offset + kv_head * args.heads.head_dim);
    heads[n].load(from, from + half, half, lane);
    if (is_value || !has_norm) continue;
    const float* const weight = is_query ? args.q_weight : args.k_weight;
    weights[n].load(weight, weight + half, half, lane);
  }
  cos_sin.load(args.cos + row * half, args.sin + row * half, half, lane);
  const int64_t slot = args.kv_slots[row];
  // A cache has fewer than 2^31 tokens.
  const uint32_t token = static_cast<uint32_t>(slot), block_size = static_cast<uint32_t>(args.kv.block_size);
  const Place place{token / block_size, static_cast<int>(token % block_size)};
  const float scale = args.query_scales == nullptr ? 1 : query_scale(args, row);
  NDS_UNROLL()
  for (int n = 0; n < kHeads; n++) {
    const int h = first + n;
    if (h >= end) continue;
    const bool is_query = h < num_heads, is_value = h >= num_heads + num_kv_heads;
    if (!is_value) {
      if (has_norm) norm_head(heads[n], weights[n], args.eps, half);
      rotate_head(heads[n], cos_sin);
    }
    if (is_query) {
      NDS_UNROLL()
      for (int j = 0; j < kPairs; j++) {
        heads[n].lower[j] = __fmul_rn(heads[n].lower[j], scale);
        heads[n].upper[j] = __fmul_rn(heads[n].upper[j], scale);
      }
      store_head(heads[n], args.q_out, row * args.ld_q + static_cast<int64_t>(h) * args.heads.head_dim, args.kv.dtype,
                 half, lane);
    } else if (slot >= 0) {
      store_kv(heads[n], args.kv, place, is_value ? h - num_heads - num_kv_heads : h - num_heads, is_value, half, lane);
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

template <int kPairs, int kHeads>
void run_rope(const RopeAndStoreArgs& args, LaunchPlace place) {
  const int num_heads = args.heads.num_heads + 2 * args.heads.num_kv_heads, of_block = kWarps * kHeads;
  const dim3 grid(static_cast<unsigned>(args.rows), static_cast<unsigned>((num_heads + of_block - 1) / of_block));
  check(simt::launch(rope_and_store_kernel<kPairs, kHeads>, {grid, dim3(kThreads), 0, place}, args), "rope_and_store");
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
  // With few rows, a warp has one head, so that all multiprocessors have some.
  const int half = args.heads.head_dim / 2;
  const bool has_many = args.rows >= kManyRows;
  if (half <= 32) return has_many ? run_rope<1, kHeadsOfMany>(args, place) : run_rope<1, 1>(args, place);
  if (half <= 64) return has_many ? run_rope<2, kHeadsOfMany>(args, place) : run_rope<2, 1>(args, place);
  run_rope<kMaxPairs, 1>(args, place);
}

void copy_blocks(const CopyBlocksArgs& args, cudaStream_t stream) {
  if (args.num_pairs == 0) return;
  const int64_t blocks = (args.kv.block_stride / 16 + kThreads - 1) / kThreads;
  const simt::LaunchShape shape{dim3(static_cast<unsigned>(blocks > 256 ? 256 : blocks), args.num_layers),
                                dim3(kThreads), 0, stream};
  check(simt::launch(copy_blocks_kernel, shape, args), "copy_blocks");
}

}  // namespace nds::cuda
