// A model in native's terms: weights to load, values to hold, operators to run. Mirrors rank/program-spec.ts.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace nds {

// Scales of a matrix W [n, k] that is stored as float8_e4m3, one for each block of rows and columns, counted from the
// first of the whole matrix: [ceil(n / rows_per_scale), ceil(k / cols_per_scale)].
struct Fp8Scales {
  int file = 0;
  int64_t byte_offset = 0;
  DType dtype = DType::f32;
  int64_t rows_per_scale = 1, cols_per_scale = 1;
};

// Bytes in a file, from byte_offset on.
struct StoredPart {
  int file = 0;
  int64_t byte_offset = 0;
};

// Order of the integers of a matrix [n, k]: bytes = int8 [n, k]; rows = unsigned in 32-bit words [n, k / per_word], the
// first in the lowest bits; awq = words [k, n / 8] of eight rows in the order 0, 2, 4, 6, 1, 3, 5, 7; gptq = words
// [k / per_word, n] of consecutive columns.
enum class IntegerLayout : int32_t { bytes = 0, rows = 1, awq = 2, gptq = 3 };

// A matrix [n, k] that is stored as integers q: its values are bf16((q - z) * scale), the product rounded to fp32
// first.
struct StoredIntegers {
  IntegerLayout layout = IntegerLayout::bytes;
  int bits = 8;
  int64_t num_rows = 0;    // n of the whole matrix
  int64_t group_size = 1;  // columns that share a scale
  StoredPart scales;       // that of a row and group is row * scale_row_stride + group * scale_group_stride
  DType scale_dtype = DType::f32;
  int64_t scale_row_stride = 0, scale_group_stride = 0;
  // Zero points, stored like integers: with bytes where the scales are, else packed along the rows.
  std::optional<StoredPart> zeros;
  int zero_offset = 0;                    // added to a stored zero point; the zero point where none is stored
  std::optional<StoredPart> group_index;  // int32 [k], the group of each column; else column / group_size
};

struct TensorSlice {
  std::string name;
  int file = 0;
  int64_t byte_offset = 0;
  DType dtype = DType::f32;  // of its values; as stored, unless there are scales
  std::optional<Fp8Scales> fp8;
  std::optional<StoredIntegers> integers;
  int64_t num_cols = 0;
  int64_t row_begin = 0, row_end = 0;
  int64_t col_begin = 0, col_end = 0;

  int64_t num_rows() const { return row_end - row_begin; }
  int64_t num_slice_cols() const { return col_end - col_begin; }
  // Whether values are computed from what is stored.
  bool is_encoded() const { return fp8 || integers; }
  // Bytes per element that is not an integer.
  int64_t stored_size() const { return fp8 ? 1 : static_cast<int64_t>(dtype_size(dtype)); }
};

enum class WeightKind { vector, table, linear };

// How the integers of a checkpoint stay as they are: packed without rounding, each scale held exactly.
struct KeptCodes {
  int group = 32;                // positions of k that share a scale: 32, 64 or 128
  bool has_wide_scales = false;  // fp32, else fp16
  // Column of the slice at each position of the packed order, -1 = none; empty = all columns in order. All columns of a
  // group have the same scale and zero point.
  std::vector<int> columns;
};

struct WeightSpec {
  WeightKind kind = WeightKind::vector;
  std::vector<TensorSlice> pieces;
  DType dtype = DType::f32;                 // table: in which its rows are kept
  WeightFormat format = WeightFormat::f32;  // linear: in which all pieces are kept
  int64_t first_row = 0;                    // table
  std::vector<int> chunk_edges;             // linear, [num_local_chunks + 1], in positions where codes has columns
  int first_chunk = 0, num_chunks = 1;
  std::optional<KeptCodes> codes;  // linear, quantized: set if its integers are the checkpoint's
};

struct ValueSpec {
  bool logit_rows = false;  // else one row per token
  bool activation = false;  // else fp32
  int width = 0;
};

constexpr int kMaxHeadDim = 1024;
// Ids that may be sampled: the masses of so many, of up to 2^44 each, have a sum of 64 bits.
constexpr int kMaxSampledIds = (1 << 20) - 1;

struct HeadLayout {
  int head_dim = 0;
  int first_head = 0, num_heads = 0;
  int first_kv_head = 0, num_kv_heads = 0;
  int group_size = 1;
  int q_offset = 0, k_offset = 0, v_offset = 0;
};

enum class OpKind {
  embedding,
  rms_norm,
  linear,
  all_reduce,
  head_norm,
  rope_and_store,
  paged_attention,
  silu_mul,
  add,
  hidden_states,
  gather_rows,
  sample,
};

constexpr int kNone = -1;

// One operator. Its kind decides which members it uses; rank/program-spec.ts documents them.
struct OpSpec {
  OpKind kind = OpKind::add;
  int x = kNone;  // first input value (qkv, q, gate_up, a, logits)
  int b = kNone;  // second input value of add
  int out = kNone;
  int weight = kNone;  // weight, table or q norm
  int k_weight = kNone;
  int bias = kNone;
  bool partial = false;
  float eps = 0;
  HeadLayout heads;
  int rope = 0;
  int layer = 0;         // of the KV cache
  int group_layer = -1;  // decoder layer that it belongs to; -1 = none
  float scale = 0;
  int sliding_window = 0;
  int up_offset = 0;
  int first_token_id = 0, num_token_ids = 0;
};

struct RopeSpec {
  std::vector<float> inv_freq;
  float scale = 1;
  // Factors of queries, each for query_length positions; empty = 1 for all.
  std::vector<float> query_scales;
  int query_length = 1;
};

struct KvSpec {
  int num_layers = 0, num_blocks = 0, block_size = 0, num_kv_heads = 0, head_dim = 0;
  KvDtype dtype = KvDtype::activation;
};

// A file that keeps this program's packed matrices between loads. Only the CPU uses it.
struct PackedFileSpec {
  std::string read_path;     // read instead of packing; empty = none
  std::string write_path;    // created once they were packed; empty = none
  std::vector<uint8_t> key;  // [32] of what is in the file
  std::string label;         // JSON for listings
};

struct ProgramSpec {
  std::vector<std::string> files;
  std::vector<WeightSpec> weights;
  std::vector<ValueSpec> values;
  std::vector<OpSpec> ops;
  std::vector<RopeSpec> ropes;
  DType dtype = DType::f32;
  int vocab_size = 0;
  int sample_vocab_size = 0;
  int hidden_size = 0;
  KvSpec kv;
  int max_num_seqs = 0;
  int max_num_batched_tokens = 0;
  int max_num_logit_rows = 0;
  int max_model_len = 0;
  std::optional<PackedFileSpec> packed_file;
};

// Accept rule. `coupled` accepts the drafts that the target draws with the same noise; `standard` and `block` judge
// them by the distributions of target and draft.
enum class DraftRule { coupled, standard, block };

// What a rank loads.
struct LoadSpec {
  ProgramSpec model;
  std::optional<ProgramSpec> draft;  // proposes tokens to the model, whose slots it shares
  bool shards_draft = false;         // else every rank holds the whole draft
  bool greedy_draft = false;         // proposes its likeliest tokens, whatever the slots' parameters
  DraftRule draft_rule = DraftRule::coupled;
};

// Whether op and `next`, the operator right after it, can run as one: a product, and a silu_mul that is the only one of
// its num_reads readers.
inline bool can_run_as_one(const OpSpec& op, const OpSpec& next, int num_reads) {
  return op.kind == OpKind::linear && !op.partial && next.kind == OpKind::silu_mul && next.x == op.out &&
         num_reads == 1;
}

}  // namespace nds
