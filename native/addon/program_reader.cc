// Reads ProgramSpec of rank/program-spec.ts into its native twin and checks every index.
#include "addon/program_reader.h"

#include <algorithm>
#include <string>
#include <utility>

#include "addon/js.h"
#include "core/program/packed_linear.h"

namespace nds::addon {
namespace {

DType read_dtype(const Napi::Object& object, const char* key) {
  const std::string name = get_string(object, key);
  if (name == "float32") return DType::f32;
  if (name == "bfloat16") return DType::bf16;
  if (name == "float16") return DType::f16;
  throw Error("ERR_INTERNAL", std::string("Expected ") + key + " to be a dtype but received " + name);
}

int in_range(int64_t value, int64_t low, int64_t high, const char* what) {
  if (value < low || value > high) {
    throw Error("ERR_INTERNAL", std::string("Expected ") + what + " from " + std::to_string(low) + " to " +
                                    std::to_string(high) + " but received " + std::to_string(value));
  }
  return static_cast<int>(value);
}

Fp8Scales read_scales(const Napi::Object& object, size_t num_files) {
  Fp8Scales scales;
  scales.file = in_range(get_int64(object, "file"), 0, static_cast<int64_t>(num_files) - 1, "a file index");
  scales.byte_offset = get_int64(object, "byteOffset");
  scales.dtype = read_dtype(object, "dtype");
  scales.rows_per_scale = in_range(get_int64(object, "rowsPerScale"), 1, INT32_MAX, "rowsPerScale");
  scales.cols_per_scale = in_range(get_int64(object, "colsPerScale"), 1, INT32_MAX, "colsPerScale");
  if (scales.byte_offset < 0) throw Error("ERR_INTERNAL", "Expected scales inside their file");
  return scales;
}

StoredPart read_part(const Napi::Object& object, size_t num_files) {
  StoredPart part;
  part.file = in_range(get_int64(object, "file"), 0, static_cast<int64_t>(num_files) - 1, "a file index");
  part.byte_offset = get_int64(object, "byteOffset");
  if (part.byte_offset < 0) throw Error("ERR_INTERNAL", "Expected parts inside their file");
  return part;
}

IntegerLayout read_layout(const Napi::Object& object) {
  const std::string name = get_string(object, "layout");
  if (name == "bytes") return IntegerLayout::bytes;
  if (name == "rows") return IntegerLayout::rows;
  if (name == "awq") return IntegerLayout::awq;
  if (name == "gptq") return IntegerLayout::gptq;
  throw Error("ERR_INTERNAL", "Expected a layout of integers but received " + name);
}

StoredIntegers read_integers(const Napi::Object& object, size_t num_files) {
  StoredIntegers integers;
  integers.layout = read_layout(object);
  integers.bits = in_range(get_int64(object, "bits"), 4, 8, "bits");
  if (integers.bits != 4 && integers.bits != 8) throw Error("ERR_INTERNAL", "Expected integers of 4 or 8 bits");
  integers.num_rows = in_range(get_int64(object, "numRows"), 1, INT32_MAX, "numRows");
  integers.group_size = in_range(get_int64(object, "groupSize"), 1, INT32_MAX, "groupSize");
  const Napi::Object scales = get_object(object, "scales");
  integers.scales = read_part(scales, num_files);
  integers.scale_dtype = read_dtype(scales, "dtype");
  integers.scale_row_stride = in_range(get_int64(scales, "rowStride"), 0, INT32_MAX, "rowStride");
  integers.scale_group_stride = in_range(get_int64(scales, "groupStride"), 0, INT32_MAX, "groupStride");
  if (!member(object, "zeros").IsNull()) integers.zeros = read_part(get_object(object, "zeros"), num_files);
  integers.zero_offset = in_range(get_int64(object, "zeroOffset"), 0, 128, "zeroOffset");
  if (!member(object, "groupIndex").IsNull())
    integers.group_index = read_part(get_object(object, "groupIndex"), num_files);
  return integers;
}

}  // namespace

WeightFormat read_format(const Napi::Object& object) {
  const std::string name = get_string(object, "format");
  if (name == "int8") return WeightFormat::int8;
  if (name == "int8_zero") return WeightFormat::int8_zero;
  if (name == "int4") return WeightFormat::int4;
  if (name == "int4_zero") return WeightFormat::int4_zero;
  if (name == "fp8") return WeightFormat::fp8;
  return static_cast<WeightFormat>(read_dtype(object, "format"));
}

KeptCodes read_codes(const Napi::Object& object) {
  KeptCodes codes;
  codes.group = in_range(get_int64(object, "group"), kTile, kMaxGroup, "a group of codes");
  codes.has_wide_scales = read_dtype(object, "scaleDtype") == DType::f32;
  if (!member(object, "columns").IsNull()) {
    const Napi::Array columns = get_array(object, "columns");
    codes.columns.reserve(columns.Length());
    for (uint32_t i = 0; i < columns.Length(); i++)
      codes.columns.push_back(columns.Get(i).As<Napi::Number>().Int32Value());
  }
  return codes;
}

TensorSlice read_slice(const Napi::Object& object, size_t num_files) {
  TensorSlice slice;
  slice.name = get_string(object, "name");
  slice.file = in_range(get_int64(object, "file"), 0, static_cast<int64_t>(num_files) - 1, "a file index");
  slice.byte_offset = get_int64(object, "byteOffset");
  slice.dtype = read_dtype(object, "dtype");
  if (!member(object, "fp8").IsNull()) slice.fp8 = read_scales(get_object(object, "fp8"), num_files);
  if (!member(object, "integers").IsNull()) slice.integers = read_integers(get_object(object, "integers"), num_files);
  slice.num_cols = get_int64(object, "numCols");
  slice.row_begin = get_int64(object, "rowBegin");
  slice.row_end = get_int64(object, "rowEnd");
  slice.col_begin = get_int64(object, "colBegin");
  slice.col_end = get_int64(object, "colEnd");
  const bool valid = slice.row_begin >= 0 && slice.row_begin <= slice.row_end && slice.row_end <= INT32_MAX &&
                     slice.col_begin >= 0 && slice.col_begin <= slice.col_end && slice.col_end <= slice.num_cols &&
                     slice.num_cols <= INT32_MAX && slice.byte_offset >= 0 &&
                     (!slice.is_encoded() || slice.dtype == DType::bf16) && !(slice.fp8 && slice.integers) &&
                     slice.row_end * slice.num_cols <= int64_t{1} << 53;
  if (!valid) throw Error("ERR_INTERNAL", "Expected a slice inside tensor " + slice.name);
  return slice;
}

namespace {

// Whether the integers of all pieces may be kept so.
bool keeps_codes(const WeightSpec& weight, int64_t k) {
  const KeptCodes& codes = *weight.codes;
  bool valid = is_quantized(weight.format) && codes.group % kTile == 0 &&
               (is_int8(weight.format) || !codes.has_wide_scales || codes.group == kTile);
  for (const TensorSlice& piece : weight.pieces) valid = valid && piece.integers;
  for (const int column : codes.columns) valid = valid && column >= -1 && column < k;
  return valid;
}

// Whether the codes of all pieces may be kept so: a scale's edges are those of quads, and of all pieces in one place.
bool keeps_fp8(const WeightSpec& weight) {
  const TensorSlice& first = weight.pieces[0];
  int64_t per_scale = first.num_cols;
  if (per_scale < 1) return false;
  for (const TensorSlice& piece : weight.pieces) {
    if (!piece.fp8 || piece.col_begin != first.col_begin || piece.num_cols != first.num_cols) return false;
    per_scale = std::min(per_scale, piece.fp8->cols_per_scale);
  }
  for (const TensorSlice& piece : weight.pieces) {
    const int64_t own = piece.fp8->cols_per_scale;
    if (own < piece.num_cols && own % per_scale != 0) return false;
  }
  for (size_t c = 1; c < weight.chunk_edges.size(); c++) {
    const int64_t begin = first.col_begin + weight.chunk_edges[c - 1], end = first.col_begin + weight.chunk_edges[c];
    for (int64_t edge = (begin / per_scale + 1) * per_scale; edge < end; edge += per_scale)
      if ((edge - begin) % kFp8Quad != 0) return false;
  }
  return true;
}

WeightSpec read_weight(const Napi::Object& object, size_t num_files) {
  WeightSpec weight;
  const std::string kind = get_string(object, "kind");
  if (kind == "table") {
    weight.kind = WeightKind::table;
    weight.dtype = read_dtype(object, "dtype");
    weight.pieces.push_back(read_slice(get_object(object, "slice"), num_files));
    weight.first_row = in_range(get_int64(object, "firstRow"), 0, INT32_MAX, "firstRow");
    return weight;
  }
  const Napi::Array pieces = get_array(object, "pieces");
  for (uint32_t i = 0; i < pieces.Length(); i++)
    weight.pieces.push_back(read_slice(pieces.Get(i).As<Napi::Object>(), num_files));
  if (weight.pieces.empty()) throw Error("ERR_INTERNAL", "Expected a weight of at least one piece");
  if (kind == "vector") return weight;
  if (kind != "linear") throw Error("ERR_INTERNAL", "Expected a kind of weight but received " + kind);
  weight.kind = WeightKind::linear;
  weight.format = read_format(object);
  const Napi::Array edges = get_array(object, "chunkEdges");
  for (uint32_t i = 0; i < edges.Length(); i++)
    weight.chunk_edges.push_back(edges.Get(i).As<Napi::Number>().Int32Value());
  weight.first_chunk = in_range(get_int64(object, "firstChunk"), 0, INT32_MAX, "firstChunk");
  weight.num_chunks = in_range(get_int64(object, "numChunks"), 1, 4096, "numChunks");
  if (!member(object, "codes").IsNull()) weight.codes = read_codes(get_object(object, "codes"));
  const int64_t k = weight.pieces[0].num_slice_cols();
  const bool is_gathered = weight.codes && !weight.codes->columns.empty();
  const int64_t num_positions = is_gathered ? static_cast<int64_t>(weight.codes->columns.size()) : k;
  bool valid = weight.chunk_edges.size() >= 2 && weight.chunk_edges.front() == 0 &&
               weight.chunk_edges.back() == num_positions && (!weight.codes || keeps_codes(weight, k)) &&
               weight.first_chunk + static_cast<int64_t>(weight.chunk_edges.size()) - 1 <= weight.num_chunks &&
               (weight.format != WeightFormat::fp8 || (!weight.codes && keeps_fp8(weight)));
  for (size_t i = 1; valid && i < weight.chunk_edges.size(); i++)
    valid = weight.chunk_edges[i - 1] <= weight.chunk_edges[i];
  for (const TensorSlice& piece : weight.pieces) valid = valid && piece.num_slice_cols() == k;
  if (!valid)
    throw Error("ERR_INTERNAL",
                "Expected chunks that cover the columns of " + weight.pieces[0].name + " and pieces that agree");
  return weight;
}

HeadLayout read_heads(const Napi::Object& object) {
  HeadLayout heads;
  heads.head_dim = in_range(get_int64(object, "headDim"), 2, kMaxHeadDim, "headDim");
  heads.first_head = in_range(get_int64(object, "firstHead"), 0, 65536, "firstHead");
  heads.num_heads = in_range(get_int64(object, "numHeads"), 1, 65536, "numHeads");
  heads.first_kv_head = in_range(get_int64(object, "firstKvHead"), 0, 65536, "firstKvHead");
  heads.num_kv_heads = in_range(get_int64(object, "numKvHeads"), 1, 65536, "numKvHeads");
  heads.group_size = in_range(get_int64(object, "groupSize"), 1, 65536, "groupSize");
  heads.q_offset = in_range(get_int64(object, "qOffset"), 0, INT32_MAX, "qOffset");
  heads.k_offset = in_range(get_int64(object, "kOffset"), 0, INT32_MAX, "kOffset");
  heads.v_offset = in_range(get_int64(object, "vOffset"), 0, INT32_MAX, "vOffset");
  return heads;
}

// Reads the members of one operator and checks its handles against the tables of the program.
class OpReader {
 public:
  OpReader(const ProgramSpec& program, const Napi::Object& object) : program_(program), object_(object) {}

  OpSpec read() {
    const std::string name = get_string(object_, "op");
    read_group();
    if (name == "embedding") return op(OpKind::embedding).weight("table").out().done();
    if (name == "rmsNorm") return op(OpKind::rms_norm).x("x").weight("weight").eps().out().done();
    if (name == "linear") return op(OpKind::linear).x("x").weight("weight").bias().partial().out().done();
    if (name == "allReduce") return op(OpKind::all_reduce).x("x").bias().out().done();
    if (name == "headNorm") return op(OpKind::head_norm).x("qkv").heads().weight("qWeight").k_weight().eps().done();
    if (name == "ropeAndStore") return op(OpKind::rope_and_store).x("qkv").heads().rope().layer().out().done();
    if (name == "pagedAttention") return op(OpKind::paged_attention).x("q").heads().layer().attention().out().done();
    if (name == "siluMul") return op(OpKind::silu_mul).x("gateUp").up().out().done();
    if (name == "add") return op(OpKind::add).x("a").b().out().done();
    if (name == "hiddenStates") return op(OpKind::hidden_states).x("x").weight("weight").eps().done();
    if (name == "gatherRows") return op(OpKind::gather_rows).x("x").out().done();
    if (name == "sample") return op(OpKind::sample).x("logits").ids().done();
    throw Error("ERR_INTERNAL", "Expected a known operator but received " + name);
  }

 private:
  void read_group() {
    if (!object_.Has("group")) return;
    const Napi::Object group = get_object(object_, "group");
    if (member(group, "layer").IsNull()) return;
    op_.group_layer = in_range(get_int64(group, "layer"), 0, 65535, "the layer of a group");
  }
  OpReader& op(OpKind kind) { return op_.kind = kind, *this; }
  OpReader& x(const char* key) { return op_.x = value(key), *this; }
  OpReader& b() { return op_.b = value("b"), *this; }
  OpReader& out() { return op_.out = value("out"), *this; }
  OpReader& weight(const char* key) { return op_.weight = weight_id(key), *this; }
  OpReader& k_weight() { return op_.k_weight = weight_id("kWeight"), *this; }
  OpReader& bias() { return op_.bias = member(object_, "bias").IsNull() ? kNone : weight_id("bias"), *this; }
  OpReader& partial() { return op_.partial = get_bool(object_, "partial"), *this; }
  OpReader& eps() { return op_.eps = static_cast<float>(get_double(object_, "eps")), *this; }
  OpReader& heads() { return op_.heads = read_heads(get_object(object_, "heads")), *this; }
  OpReader& rope() {
    return op_.rope =
               in_range(get_int64(object_, "rope"), 0, static_cast<int64_t>(program_.ropes.size()) - 1, "a rope index"),
           *this;
  }
  OpReader& layer() {
    return op_.layer = in_range(get_int64(object_, "layer"), 0, program_.kv.num_layers - 1, "a layer"), *this;
  }
  OpReader& up() { return op_.up_offset = in_range(get_int64(object_, "upOffset"), 0, INT32_MAX, "upOffset"), *this; }
  OpReader& attention() {
    op_.scale = static_cast<float>(get_double(object_, "scale"));
    op_.sliding_window = in_range(get_int64(object_, "slidingWindow"), 0, INT32_MAX, "slidingWindow");
    return *this;
  }
  OpReader& ids() {
    op_.first_token_id = in_range(get_int64(object_, "firstTokenId"), 0, program_.vocab_size, "firstTokenId");
    op_.num_token_ids =
        in_range(get_int64(object_, "numTokenIds"), 0, program_.vocab_size - op_.first_token_id, "numTokenIds");
    return *this;
  }
  OpSpec done() { return op_; }

  int value(const char* key) {
    return in_range(get_int64(object_, key), 0, static_cast<int64_t>(program_.values.size()) - 1, key);
  }
  int weight_id(const char* key) {
    return in_range(get_int64(object_, key), 0, static_cast<int64_t>(program_.weights.size()) - 1, key);
  }

  const ProgramSpec& program_;
  const Napi::Object& object_;
  OpSpec op_;
};

KvDtype read_kv_dtype(const Napi::Object& kv, DType activation_dtype) {
  const std::string name = get_string(kv, "dtype");
  if (name == "int8") return KvDtype::int8;
  const DType dtype = read_dtype(kv, "dtype");
  if (dtype == activation_dtype) return KvDtype::activation;
  if (dtype == DType::bf16 && activation_dtype == DType::f32) return KvDtype::bf16;
  throw Error("ERR_INTERNAL", "Expected a KV cache of int8, bfloat16 or the dtype of activations but received " + name);
}

void read_limits(const Napi::Object& spec, ProgramSpec& program) {
  program.dtype = read_dtype(spec, "dtype");
  program.vocab_size = in_range(get_int64(spec, "vocabSize"), 1, INT32_MAX, "vocabSize");
  program.sample_vocab_size =
      in_range(get_int64(spec, "sampleVocabSize"), 1, std::min(program.vocab_size, kMaxSampledIds), "sampleVocabSize");
  program.hidden_size = in_range(get_int64(spec, "hiddenSize"), 1, INT32_MAX, "hiddenSize");
  const Napi::Object kv = get_object(spec, "kv");
  program.kv.num_layers = in_range(get_int64(kv, "numLayers"), 1, 65536, "numLayers");
  program.kv.num_blocks = in_range(get_int64(kv, "numBlocks"), 1, INT32_MAX, "numBlocks");
  program.kv.block_size = in_range(get_int64(kv, "blockSize"), 32, 65536, "blockSize");
  if (program.kv.block_size % 32 != 0) throw Error("ERR_INTERNAL", "Expected blockSize to be a multiple of 32");
  program.kv.num_kv_heads = in_range(get_int64(kv, "numKvHeads"), 1, 65536, "numKvHeads");
  program.kv.head_dim = in_range(get_int64(kv, "headDim"), 2, kMaxHeadDim, "headDim");
  program.kv.dtype = read_kv_dtype(kv, program.dtype);
  program.max_num_seqs = in_range(get_int64(spec, "maxNumSeqs"), 1, 65536, "maxNumSeqs");
  program.max_num_batched_tokens = in_range(get_int64(spec, "maxNumBatchedTokens"), 1, 1 << 20, "maxNumBatchedTokens");
  program.max_num_logit_rows = in_range(get_int64(spec, "maxNumLogitRows"), 1, 1 << 20, "maxNumLogitRows");
  program.max_model_len = in_range(get_int64(spec, "maxModelLen"), 1, INT32_MAX, "maxModelLen");
}

PackedFileSpec read_packed_file(const Napi::Object& object) {
  const auto key = as_typed_array<Napi::Uint8Array>(member(object, "key"), napi_uint8_array, "key");
  if (key.ElementLength() != 32) throw Error("ERR_INTERNAL", "Expected a key of 32 bytes");
  return {.read_path = get_string(object, "readPath"),
          .write_path = get_string(object, "writePath"),
          .key = {key.Data(), key.Data() + key.ElementLength()},
          .label = get_string(object, "label")};
}

}  // namespace

ProgramSpec read_program(const Napi::Object& spec) {
  ProgramSpec program;
  read_limits(spec, program);
  if (spec.Get("packedFile").IsObject()) program.packed_file = read_packed_file(get_object(spec, "packedFile"));
  const Napi::Array files = get_array(spec, "files");
  for (uint32_t i = 0; i < files.Length(); i++) program.files.push_back(files.Get(i).As<Napi::String>().Utf8Value());
  const Napi::Array weights = get_array(spec, "weights");
  for (uint32_t i = 0; i < weights.Length(); i++)
    program.weights.push_back(read_weight(weights.Get(i).As<Napi::Object>(), program.files.size()));
  const Napi::Array values = get_array(spec, "values");
  for (uint32_t i = 0; i < values.Length(); i++) {
    const Napi::Object value = values.Get(i).As<Napi::Object>();
    program.values.push_back({get_string(value, "rows") == "logitRows", get_string(value, "type") == "activation",
                              in_range(get_int64(value, "width"), 0, INT32_MAX - 32, "width")});
  }
  const Napi::Array ropes = get_array(spec, "ropes");
  for (uint32_t i = 0; i < ropes.Length(); i++) {
    const Napi::Object rope = ropes.Get(i).As<Napi::Object>();
    const auto inv_freq = as_typed_array<Napi::Float32Array>(member(rope, "invFreq"), napi_float32_array, "invFreq");
    const auto scales =
        as_typed_array<Napi::Float32Array>(member(rope, "queryScales"), napi_float32_array, "queryScales");
    program.ropes.push_back({.inv_freq = {inv_freq.Data(), inv_freq.Data() + inv_freq.ElementLength()},
                             .scale = static_cast<float>(get_double(rope, "scale")),
                             .query_scales = {scales.Data(), scales.Data() + scales.ElementLength()},
                             .query_length = get_int(rope, "queryLength")});
  }
  const Napi::Array ops = get_array(spec, "ops");
  for (uint32_t i = 0; i < ops.Length(); i++) {
    const Napi::Object op = ops.Get(i).As<Napi::Object>();
    program.ops.push_back(OpReader(program, op).read());
  }
  return program;
}

}  // namespace nds::addon
