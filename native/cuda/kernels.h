// The CUDA operators: their arguments, and host functions that launch them.
//
// Every pointer is device memory unless said otherwise; every function enqueues work on the stream, waits for nothing,
// and throws nds::Error (ERR_CUDA) when a launch is refused. Arguments travel by value, so that a launch can be
// captured into a graph: a kernel reads what changes from step to step only through pointers. `rows` may include
// padding rows, whose results are not read: their token id is 0, their position 0, their KV slot -1.
//
// Matrices are row-major; ld is the row stride in elements, a multiple of 32. "Activations" are f32 or bf16 and have
// zeros in columns past the width up to ld: the writer of a row writes that padding too.
//
// Sums have one order: no result of a row depends on how many other rows there are, on padding, or on the grid. exp,
// log and the like are our own (cuda/math.h); additions and products are intrinsics where contraction to an FMA could
// change them.
#pragma once
#include <cstdint>

#include "core/dtype.h"
#include "core/program/program.h"
#include "cuda/device.h"

namespace nds::cuda {

// A launch that overlaps the one before it waits before it reads or writes anything, except that linear() already loads
// its first weights: no work that is queued may write them.
using simt::LaunchPlace;

// In kernels/linear.cu.

// A matrix W [num_rows, k] as the device holds it, and the order in which its k columns are summed. Each chunk of
// columns is summed by itself, in the order of its kernel: plain or tensor core. Then chunk sums join on a stack: after
// chunk c is pushed, the two topmost are added (lower + upper) merges[c] times. What remains, bottom to top, are
// num_roots partial sums.
struct LinearWeight {
  const void* data = nullptr;  // [num_rows, ld] row-major; rows and columns past the matrix are zeros
  DType dtype = DType::f32;
  int num_rows = 0;  // a multiple of 32
  int k = 0;
  int64_t ld = 0;  // elements, a multiple of 32
  int num_chunks = 0;
  int num_roots = 1;
  int stack_depth = 1;                   // max sums on the stack at once
  const int32_t* chunk_edges = nullptr;  // [num_chunks + 1] from 0 to k
  const uint8_t* merges = nullptr;       // [num_chunks]
  const int32_t* host_edges = nullptr;   // chunk_edges in host memory
  const uint8_t* host_merges = nullptr;  // merges in host memory
  // Whether every chunk edge of every rank is a multiple of 32, and weights and activations are bf16. A property of the
  // model, so that every world size takes the same kernels: plain and tensor core sums differ in their last bits.
  bool on_tensor_cores = false;
};

enum class LinearResult {
  store,     // y = sum + bias; with several roots, y[root] = that root, no bias
  add,       // y += sum + bias; one root
  silu_mul,  // out = silu(sum[j]) * sum[up_offset + j] (+ bias each), an activation; one root
};

struct LinearArgs {
  const void* x = nullptr;  // activation [m, w.k]
  DType x_dtype = DType::f32;
  int64_t ldx = 0;
  int m = 0;
  LinearWeight w;
  const float* bias = nullptr;  // [w.num_rows] or null
  LinearResult result = LinearResult::store;
  float* y = nullptr;  // [m, w.num_rows], root after root at root_stride
  int64_t ldy = 0;
  int64_t root_stride = 0;
  void* out = nullptr;  // of silu_mul: activation [m, width] of x_dtype
  int64_t ld_out = 0;
  int width = 0, up_offset = 0;
};
void linear(const LinearArgs& args, LaunchPlace place);

// In kernels/rows.cu.

// out[i] = fp32 of table row token_ids[i] - first_row where this rank has that row; other rows of out become 0.
struct EmbeddingArgs {
  const int32_t* token_ids;
  int rows;
  const void* table;  // [num_rows, table_ld]
  DType table_dtype;
  int64_t table_ld;
  int first_row, num_rows;
  int width;
  float* out;
  int64_t ld_out;
};
void embedding(const EmbeddingArgs& args, LaunchPlace place);

// x += addend where there is one; then out = x / sqrt(mean(x^2) + eps) * weight, an activation.
struct RmsNormArgs {
  float* x;
  int64_t ldx;
  const float* addend;  // [rows, width] at ld_addend, or null
  int64_t ld_addend;
  const float* weight;
  float eps;
  int rows, width;
  void* out;
  int64_t ld_out;
  DType out_dtype;
};
void rms_norm(const RmsNormArgs& args, LaunchPlace place);

// out[row] = x[indices[row]] of elements of element_size bytes; zeros where the index is negative.
struct GatherRowsArgs {
  const void* x;
  int64_t ldx;
  const int32_t* indices;
  int rows, width, element_size;
  void* out;
  int64_t ld_out;
};
void gather_rows(const GatherRowsArgs& args, LaunchPlace place);

// out = silu(gate) * up, with silu(x) = x / (1 + exp(-x)); out an activation.
struct SiluMulArgs {
  const float* gate;
  const float* up;
  int64_t ld;
  int rows, width;
  void* out;
  int64_t ld_out;
  DType out_dtype;
};
void silu_mul(const SiluMulArgs& args, LaunchPlace place);

// out = a + b; out may be a or b.
struct AddArgs {
  const float* a;
  const float* b;
  float* out;
  int64_t lda, ldb, ld_out;
  int rows, width;
};
void add(const AddArgs& args, LaunchPlace place);

// out[i] = the inputs joined by the stack program `merges` (as in LinearWeight), + bias[i % width] where there is one.
constexpr int kMaxJoinInputs = 64;
struct JoinArgs {
  const float* inputs[kMaxJoinInputs];  // each [count], in tree order
  uint8_t merges[kMaxJoinInputs];
  int num_inputs;
  const float* bias;  // [width] or null
  int64_t width;      // row stride of the joined matrix
  int64_t count;
  float* out;
};
void join(const JoinArgs& args, LaunchPlace place);

// In kernels/rope.cu.

// The paged KV cache of one layer. Tile (block, kv head) lies at base + block * block_stride + head * tile_bytes:
// K [block_size, head_dim], V [block_size, head_dim], and for int8 then fp32 scales K [block_size], V [block_size]: an
// element is its integer times the scale of its token. Tiles are 16-byte aligned.
struct KvCache {
  uint8_t* base = nullptr;
  DType dtype = DType::f32;  // of activations: f32 or bf16
  KvDtype kv_dtype = KvDtype::activation;
  int num_blocks = 0, block_size = 0, num_kv_heads = 0, head_dim = 0;
  int64_t tile_bytes = 0, block_stride = 0;

  __host__ __device__ int element_size() const { return kv_dtype == KvDtype::int8 ? 1 : dtype == DType::f32 ? 4 : 2; }
  __host__ __device__ int64_t panel_bytes() const { return int64_t{block_size} * head_dim * element_size(); }
  // K of a block's first token for one head; V is panel_bytes() after it, the scales 2 * panel_bytes().
  __host__ __device__ uint8_t* tile(int64_t block, int head) const {
    return base + block * block_stride + head * tile_bytes;
  }
};

// cos and sin [rows, half_dim], times scale, of the angle (float)position * inv_freq: the product is rounded to fp32,
// its cos and sin are taken in double precision.
struct RopeTableArgs {
  const int32_t* positions;
  int rows;
  const float* inv_freq;
  int half_dim;
  float scale;
  float* cos;
  float* sin;
};
void rope_table(const RopeTableArgs& args, LaunchPlace place);

// Per head: RMS norm of q and k where q_weight is given (rounded as in rms_norm), then rotation of their two halves. k
// and v go to the cache, q to q_out, an activation of kv.dtype. qkv stays unchanged.
struct RopeAndStoreArgs {
  const float* qkv;
  int64_t ld;
  int rows;
  HeadLayout heads;
  const float* q_weight;  // [head_dim] or null, both or neither
  const float* k_weight;
  float eps;
  const float* cos;  // [rows, head_dim / 2]
  const float* sin;
  KvCache kv;
  const int64_t* kv_slots;  // [rows] block * block_size + offset in the block; -1 stores nothing
  void* q_out;              // [rows, num_heads * head_dim]
  int64_t ld_q;
  const float* query_scales = nullptr;  // [num_query_scales] factor of a query, by position / query_length; null = 1
  int num_query_scales = 0;
  int query_length = 1;
  const int32_t* positions = nullptr;  // [rows]
};
void rope_and_store(const RopeAndStoreArgs& args, LaunchPlace place);

// Copies whole blocks (source, destination pairs) of num_layers layers, layer_stride bytes apart, in list order: a
// destination may be the source of a later pair.
struct CopyBlocksArgs {
  KvCache kv;  // of layer 0
  int64_t layer_stride;
  int num_layers;
  const int32_t* pairs;  // [num_pairs, 2]
  int num_pairs;
};
void copy_blocks(const CopyBlocksArgs& args, cudaStream_t stream);

// In kernels/attention.cu.

// Causal attention, bottom-right aligned: query i of a sequence sees keys 0 … context_len - query_len + i, with a
// sliding window w only the last w of those. Cache slots past the tokens of a sequence may hold NaN.
//
// One order of sums for all kernels: keys are visited in segments of kSegment tokens from position 0 up. Within a
// segment a row has one maximum m, probabilities p = exp(s - m), their sum l and a = sum of p v in order of keys;
// segments fold from the lowest up: M' = max(M, m), L = L exp(M - M') + l exp(m - M'), the same for A; the result is A
// / L.
constexpr int kSegment = 128;

struct AttentionBatch {
  const int32_t* num_seqs = nullptr;       // [1]
  const int32_t* cu_query_lens = nullptr;  // [num_seqs + 1]
  const int32_t* context_lens = nullptr;   // [num_seqs] cached + new tokens
  const int32_t* first_blocks = nullptr;   // [num_seqs] where in block_tables the table of each sequence begins
  const int32_t* block_tables = nullptr;
  // Work lists that plan_attention writes once per pass for all layers (opaque, attention_plan_bytes long).
  void* plan = nullptr;
  // Host-side upper bounds of this launch, the same for every replay of a graph.
  int max_seqs = 0, max_tokens = 0, max_query_len = 0, max_context_len = 0;
};

struct AttentionArgs {
  AttentionBatch batch;
  const void* q;  // activation [num_tokens, num_heads * head_dim], dtype of kv
  int64_t ldq;
  KvCache kv;
  HeadLayout heads;
  float scale;
  int sliding_window;  // 0 = none
  void* out;           // activation [num_tokens, num_heads * head_dim] of kv.dtype
  int64_t ld_out;
  void* scratch;  // attention_scratch_bytes; shared by all layers of a pass
};

// Sizes for the largest pass that a program allows.
struct AttentionLimits {
  int max_seqs, max_tokens, max_model_len;
  int num_heads, num_kv_heads, group_size, head_dim;
  DType dtype;
  KvDtype kv_dtype;
  // Max bytes of partial results of sequences that are split between blocks. A sequence whose results do not fit is not
  // split: same bits.
  int64_t max_partial_bytes = int64_t{96} << 20;
};
int64_t attention_plan_bytes(const AttentionLimits& limits);
int64_t attention_scratch_bytes(const AttentionLimits& limits);
// Writes the work lists of batch.plan from the lengths on the device: once per pass, before the first layer. The head
// counts in limits hold for all layers.
void plan_attention(const AttentionBatch& batch, const AttentionLimits& limits, LaunchPlace place);
void paged_attention(const AttentionArgs& args, const AttentionLimits& limits, LaunchPlace place);

}  // namespace nds::cuda
