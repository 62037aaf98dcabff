// The CPU operators: their arguments, and one table of functions per instruction set.
//
// All threads of a rank call each operator with (tid, num_threads), and each does its share; the caller adds a barrier.
// Shares are whole output elements, so no result depends on the number of threads. No operator allocates, throws or
// calls libm. Matrices are row-major; ld is the row stride in elements.
// "activation" matrices have the dtype of the run (f32 or bf16), ld a multiple of 32, and zeros in columns past the
// width up to ld, which the writer of a row writes too.
#pragma once
#include <cstdint>

#include "core/program/packed_linear.h"
#include "cpu/kv_view.h"
#include "step/accept.h"

namespace nds::cpu {

// y[root] [m, num_panels * 32] = partial sums of x W^T, roots at root_stride; y += bias if there is one root and a
// bias. With quantized weights, a chunk adds up its groups in order from 0: fma(float(dot), x_scale / 256 * (256 *
// w_scale), sum), where dot, the sum of q_x * q_w, is exact, and the product of the scales is rounded to fp32. fp8 has
// the bits of the bf16 matrix of its values.
struct LinearArgs {
  const void* x;  // activation [m, w->k]; for quantized weights, rows of quantize_rows, and ldx in bytes
  int64_t ldx;
  DType x_dtype;  // not used with quantized weights
  int m;
  const PackedLinear* w;
  const float* bias;  // [num_panels * 32] or null
  float* y;
  int64_t ldy;
  int64_t root_stride;
  uint8_t* scratch = nullptr;  // [num_threads][linear_scratch_bytes(*w)], 64-byte aligned; null if that is 0
};

// out = silu(gate) * up, gate the columns of y = x W^T + bias from 0 on and up those from up_offset on: the bits of
// linear and silu_mul, without y in memory. W has one root.
struct LinearSiluMulArgs {
  LinearArgs linear;  // y, ldy and root_stride are not used
  int up_offset;      // a multiple of 32
  int width;
  void* out;  // activation [m, width]
  int64_t ld_out;
  DType out_dtype;
};

// Quantizes activations by the groups of w, for its products: scale = amax / 127 and q = round(x * (127 / amax)), ties
// to even, both in fp32. A group of which no magnitude reaches 2^-100 is zero. One that is not finite has q = 0 and a
// NaN as its scale. Threads divide the rows; a row that threads do not share may be quantized by each for itself.
struct QuantizeArgs {
  const void* x;  // activation [rows, w->k]
  int64_t ldx;
  DType x_dtype;
  int rows;
  const PackedLinear* w;
  uint8_t* out;  // [rows] of quantized_row_bytes(*w), 64-byte aligned
};

// Packs num_rows rows of one source matrix into the panels from first_panel on, columns in the order of w.chunks.
// Threads divide the panels. src points at the first row, first column of this rank; src_ld is in elements.
// Rows are of the type of w.format, or fp32 where it quantizes. Per group and output, int8 has scale = amax / 127, int4
// has scale = amax / 120, and fp16(256 * scale) is kept. int4 has a multiplier for each tile: round(|v| / (8 * scale)),
// 1 … 15, with v the tile's value of largest magnitude (the positive one of two), negative if v is positive.
// q = round(w / (multiplier * scale)) with the scale that is kept. All are rounded to nearest, ties to even, and q is
// clamped.
struct PackArgs {
  PackedLinear* w;
  const uint8_t* src;
  int64_t src_ld;
  int num_rows;
  int first_panel;
};

// out = x / sqrt(mean(x^2) + eps) * weight, out an activation.
struct RmsNormArgs {
  const float* x;
  int64_t ldx;
  const float* weight;
  float eps;
  int rows;
  int width;
  void* out;
  int64_t ld_out;
  DType out_dtype;
};

// In-place RMS norm of num_heads runs of head_dim columns from column `offset` on.
struct HeadNormArgs {
  float* qkv;
  int64_t ld;
  int rows;
  int offset;
  int num_heads;
  int head_dim;
  const float* weight;  // [head_dim]
  float eps;
};

// scale * cos and scale * sin [rows, half_dim] of (float)position * inv_freq, the product rounded to fp32.
struct RopeTableArgs {
  const int32_t* positions;
  int rows;
  const float* inv_freq;
  int half_dim;
  float scale;
  float* cos;
  float* sin;
};

// Rotates q and k, pairing the two halves of a head as Llama does; k and v go to the cache, q to q_out (activation).
struct RopeAndStoreArgs {
  const float* qkv;
  int64_t ld;
  int rows;
  int num_heads;
  int q_offset, k_offset, v_offset;
  const float* cos;  // [rows, head_dim / 2]
  const float* sin;
  KvView kv;
  const int64_t* kv_slots;  // [rows] block * block_size + offset in the block
  void* q_out;              // [rows, num_heads * head_dim]
  int64_t ld_q;
  const float* query_scales = nullptr;  // factor of a query, by position / query_length; null = 1
  int query_length = 1;
  const int32_t* positions = nullptr;  // [rows]
};

// Causal attention, bottom-right aligned: query i of a sequence sees keys 0 … context_len - query_len + i.
// Keys are visited in runs of 32 from position 0 up; with a window, from the first run that overlaps it.
struct AttentionArgs {
  const void* q;  // activation [num_tokens, num_heads * head_dim], dtype of kv
  int64_t ldq;
  int num_seqs;
  const int32_t* cu_query_lens;  // [num_seqs + 1]
  const int32_t* context_lens;   // [num_seqs] cached + new tokens
  const int32_t* block_tables;
  const int32_t* first_blocks;  // [num_seqs] offset of each sequence's table in block_tables
  KvView kv;
  int num_heads;      // on this rank
  int first_head;     // in the model
  int group_size;     // query heads per KV head in the model
  int first_kv_head;  // in the model
  float scale;
  int sliding_window;  // query i sees key j if i - j < window; 0 = no window
  void* out;           // activation [num_tokens, num_heads * head_dim]
  int64_t ld_out;
  uint8_t* scratch;  // [num_threads][attention_scratch_bytes(kv)], 64-byte aligned
};

struct SiluMulArgs {
  const float* gate;
  const float* up;
  int64_t ld;
  int rows;
  int width;
  void* out;
  int64_t ld_out;
  DType out_dtype;
};

// out = a + b, all [rows, width] fp32; out may be a or b.
struct AddArgs {
  const float* a;
  const float* b;
  float* out;
  int64_t lda, ldb, ld_out;
  int rows;
  int width;
};

// out[i] = table row token_ids[i] - first_row in fp32, if this rank owns that row; other rows of out are unchanged.
struct EmbeddingArgs {
  const int32_t* token_ids;
  int rows;
  const uint8_t* table;
  DType table_dtype;
  int64_t table_ld;
  int first_row;
  int num_rows;
  int width;
  float* out;
  int64_t ld_out;
};

// Joins partial sums: inputs in tree order, merges as in PackedLinear, then + bias[j % width] if given. The calling
// thread alone writes elements [begin, end) of out (no tid).
struct JoinArgs {
  const float* const* inputs;
  const uint8_t* merges;  // [num_inputs]
  int num_inputs;
  const float* bias;  // [width] or null
  int64_t width;      // row length of the joined matrix
  int64_t begin, end;
  float* out;
};

// Sampling parameters of a slot, and the address of this row's draw (accept.h).
struct SampleParams {
  float temperature = 0;  // 0 = arg-max
  float top_p = 1;        // 1 = all
  float min_p = 0;        // 0 = all
  int top_k = 0;          // 0 = all
  uint64_t seed = 0;
  uint32_t position = 0;      // absolute position of the drawn token
  uint32_t sample_index = 0;  // of n samples
  NoiseStream stream = NoiseStream::target;
  uint32_t round = 0;  // absolute position where the speculative round began; 0 for the target's own draws
};

// The threads that work on one row together. Each calls the kernel with the same arguments and its own tid, and gets
// the same result, once all are done with the scratch.
struct Team {
  int tid = 0;
  int size = 1;
  void (*barrier)(void* pool) = nullptr;  // waits until all of the team have called it; not called if size is 1
  void* pool = nullptr;
};

struct Candidate {
  float value;
  int32_t id;  // -1 = none
};

// One sequence's round. A draft must be drawn from exactly the q given here. For a draft chosen without randomness
// (n-grams, a greedy draft), q is its one id with all the mass. p is filtered as q is.
struct AcceptArgs {
  AcceptRule rule;
  int num_drafts;         // K: 0 … kMaxDrafts
  const int32_t* drafts;  // [K]
  const Distribution* q;  // [K] q[j] after j drafts, not empty
  const Distribution* p;  // [K + 1] p[j] after j drafts, not empty
  uint64_t seed;
  uint32_t position;  // absolute position of the first decided token, drafts[0]
  uint32_t sample_index;
  uint32_t round;  // = position
};

// Log-probabilities of one row of raw logits. NaN counts as -inf, whose log-probability is -inf.
struct LogprobArgs {
  const float* logits;  // [vocab_size]
  int vocab_size;
  int num_drawable;   // only ids below it are ranked or among the likeliest; the others count in the normalizer only
  int32_t token;      // reported first
  int num_likeliest;  // 0 … num_drawable
  int32_t* ids;       // [1 + num_likeliest] the token, then the likeliest: logit descending, then id ascending
  float* logprobs;    // [1 + num_likeliest] of ids
};

// Functions that tests probe lane by lane. gumbel takes the bits of x as a random word.
enum class LaneFunction { exp, log, gumbel };

struct Kernels {
  const char* name;
  bool native_bf16;  // bf16 products in hardware; makes bfloat16 the default dtype of bf16 checkpoints

  // False if a weight is not finite, or too large for a scale in fp16 (int8: 32,496, int4: 30,712).
  bool (*pack_linear)(const PackArgs&, int tid, int num_threads);
  int64_t (*quantized_row_bytes)(const PackedLinear&);
  void (*quantize_rows)(const QuantizeArgs&, int tid, int num_threads);
  int64_t (*linear_scratch_bytes)(const PackedLinear&);
  void (*linear)(const LinearArgs&, int tid, int num_threads);
  void (*linear_silu_mul)(const LinearSiluMulArgs&, int tid, int num_threads);
  void (*rms_norm)(const RmsNormArgs&, int tid, int num_threads);
  void (*head_norm)(const HeadNormArgs&, int tid, int num_threads);
  void (*rope_table)(const RopeTableArgs&, int tid, int num_threads);
  void (*rope_and_store)(const RopeAndStoreArgs&, int tid, int num_threads);
  void (*paged_attention)(const AttentionArgs&, int tid, int num_threads);
  int64_t (*attention_scratch_bytes)(const KvView&);
  void (*silu_mul)(const SiluMulArgs&, int tid, int num_threads);
  void (*add)(const AddArgs&, int tid, int num_threads);
  void (*embedding)(const EmbeddingArgs&, int tid, int num_threads);
  void (*join)(const JoinArgs&);

  // Best of n logits whose ids count from first_id: arg-max of logit (temperature 0), else of logit / temperature +
  // Gumbel noise. Ties go to the lowest id; NaN and -inf are never taken. Not for rows with top-k, top-p or min-p.
  // {-inf, -1} if there is none.
  Candidate (*sample_row)(const float* logits, int n, int first_id, const SampleParams&);
  // The same for a whole row [n] with filters, by a team; scratch holds filter_scratch_bytes(n, team.size), 64-byte
  // aligned.
  Candidate (*sample_filtered_row)(const float* logits, int n, const SampleParams&, uint8_t* scratch, const Team&);
  int64_t (*filter_scratch_bytes)(int n, int num_threads);
  // Distribution of a whole row [n] after the same transform (temperature, top-k, top-p, min-p; temperature 0 = all
  // mass on the arg-max). Ids more than 31 below the best are left out: no noise makes up for 27. The team writes ids
  // [n] and masses [n]; empty if no logit is a number.
  Distribution (*distribution)(const float* logits, int n, const SampleParams&, uint8_t* scratch, int32_t* ids,
                               uint64_t* masses, const Team&);
  // An id drawn from a distribution: arg-max of ln(mass) + Gumbel noise at `address`. -1 if it is empty. scratch holds
  // accept_scratch_bytes(team.size), 64-byte aligned.
  int32_t (*draw)(const Distribution&, const SampleParams& address, uint8_t* scratch, const Team&);
  // Number of accepted drafts of a round, and the token after them; scratch as for draw.
  Accepted (*accept_drafts)(const AcceptArgs&, uint8_t* scratch, const Team&);
  int64_t (*accept_scratch_bytes)(int num_threads);
  // Fills ids and logprobs; returns the rank of the token by likelihood, from 1.
  int32_t (*log_probabilities)(const LogprobArgs&);

  // Hardware baselines of benchmarks. probe_read reads every byte (64-byte aligned) once; its result only keeps the
  // reads alive.
  float (*probe_read)(const uint8_t* data, int64_t bytes);
  // Runs `rounds` rounds of multiply-adds in registers; returns the number of floating-point operations.
  double (*probe_multiply_add)(int64_t rounds, float* sink);
  // The same of products of bytes, summed in integers.
  double (*probe_int8)(int64_t rounds, float* sink);

  // For tests: y[i] = function(x[i]); Philox4x32-10.
  void (*test_map)(LaneFunction function, const float* x, int64_t count, float* y);
  void (*test_philox)(const uint32_t counter[4], uint64_t key, uint32_t words[4]);
};

// Instruction sets that this processor and this build offer, best first; the last is always "portable".
struct IsaList {
  const Kernels* tables[7];
  int count;
};
const IsaList& available_isas();

}  // namespace nds::cpu
