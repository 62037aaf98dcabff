// Serializes a LoadSpec; one field list serves both directions.
#include "core/program/load_spec_bytes.h"

#include <cstring>
#include <type_traits>

#include "core/error.h"

namespace nds {
namespace {

constexpr uint32_t kFormat = 0x6e647307;  // format version: increment with every change of a field list

class Writer {
 public:
  std::vector<uint8_t> bytes;
  template <typename T>
  void plain(const T& value) {
    const auto* from = reinterpret_cast<const uint8_t*>(&value);
    bytes.insert(bytes.end(), from, from + sizeof(T));
  }
  template <typename List>
  uint64_t size(const List& list) {
    const uint64_t count = list.size();
    plain(count);
    return count;
  }
};

class Reader {
 public:
  Reader(const uint8_t* bytes, int64_t size) : next_(bytes), left_(size) {}
  template <typename T>
  void plain(T& value) {
    if (left_ < static_cast<int64_t>(sizeof(T))) fail();
    std::memcpy(&value, next_, sizeof(T));
    next_ += sizeof(T);
    left_ -= static_cast<int64_t>(sizeof(T));
  }
  template <typename List>
  uint64_t size(List& list) {
    uint64_t count = 0;
    plain(count);
    // An element takes at least one byte.
    if (count > static_cast<uint64_t>(left_)) fail();
    list.resize(count);
    return count;
  }
  void expect_end() const {
    if (left_ != 0) fail();
  }
  [[noreturn]] static void fail() { throw Error("ERR_INTERNAL", "Expected the bytes of a program of this version"); }

 private:
  const uint8_t* next_;
  int64_t left_;
};

// const T& for a Writer, T& for a reader.
template <typename Archive, typename T>
using Ref = std::conditional_t<std::is_same_v<Archive, Writer>, const T&, T&>;

template <typename Archive, typename T>
std::enable_if_t<std::is_arithmetic_v<T> || std::is_enum_v<T>> field(Archive& a, T& value) {
  a.plain(value);
}
template <typename Archive>
void field(Archive& a, Ref<Archive, std::string> text) {
  a.size(text);
  for (auto& c : text) a.plain(c);
}

// Lists all fields of a struct; omitting one does not compile.
#define NDS_FIELDS(Type, ...)                                       \
  template <typename Archive>                                       \
  void field(Archive& a, Ref<Archive, Type> s) {                    \
    auto& [__VA_ARGS__] = s;                                        \
    [&](auto&... fields) { (field(a, fields), ...); }(__VA_ARGS__); \
  }
template <typename Archive, typename T>
void field(Archive& a, const std::vector<T>& list);
template <typename Archive, typename T>
void field(Archive& a, std::vector<T>& list);
template <typename T>
void field(Writer& a, const std::optional<T>& value);
template <typename T>
void field(Reader& a, std::optional<T>& value);

NDS_FIELDS(Fp8Scales, file, byte_offset, dtype, rows_per_scale, cols_per_scale)
NDS_FIELDS(StoredPart, file, byte_offset)
NDS_FIELDS(StoredIntegers, layout, bits, num_rows, group_size, scales, scale_dtype, scale_row_stride,
           scale_group_stride, zeros, zero_offset, group_index)
NDS_FIELDS(TensorSlice, name, file, byte_offset, dtype, fp8, integers, num_cols, row_begin, row_end, col_begin, col_end)
NDS_FIELDS(KeptCodes, group, has_wide_scales, columns)
NDS_FIELDS(WeightSpec, kind, pieces, dtype, format, first_row, chunk_edges, first_chunk, num_chunks, codes)
NDS_FIELDS(ValueSpec, logit_rows, activation, width)
NDS_FIELDS(HeadLayout, head_dim, first_head, num_heads, first_kv_head, num_kv_heads, group_size, q_offset, k_offset,
           v_offset)
NDS_FIELDS(OpSpec, kind, x, b, out, weight, k_weight, bias, partial, eps, heads, rope, layer, group_layer, scale,
           sliding_window, up_offset, first_token_id, num_token_ids)
NDS_FIELDS(RopeSpec, inv_freq, scale, query_scales, query_length)
NDS_FIELDS(KvSpec, num_layers, num_blocks, block_size, num_kv_heads, head_dim, dtype)
NDS_FIELDS(PackedFileSpec, read_path, write_path, key, label)
NDS_FIELDS(ProgramSpec, files, weights, values, ops, ropes, dtype, vocab_size, sample_vocab_size, hidden_size, kv,
           max_num_seqs, max_num_batched_tokens, max_num_logit_rows, max_model_len, packed_file)
#undef NDS_FIELDS

template <typename Archive, typename T>
void field(Archive& a, const std::vector<T>& list) {
  a.size(list);
  for (const T& element : list) field(a, element);
}
template <typename Archive, typename T>
void field(Archive& a, std::vector<T>& list) {
  a.size(list);
  for (T& element : list) field(a, element);
}

template <typename T>
void field(Writer& a, const std::optional<T>& value) {
  a.plain(value.has_value());
  if (value) field(a, *value);
}
template <typename T>
void field(Reader& a, std::optional<T>& value) {
  bool has_value = false;
  a.plain(has_value);
  if (has_value) field(a, value.emplace());
}

template <typename Archive>
void load_spec(Archive& a, Ref<Archive, LoadSpec> spec) {
  field(a, spec.model);
  field(a, spec.draft);
  field(a, spec.shards_draft);
  field(a, spec.greedy_draft);
  field(a, spec.draft_rule);
}

}  // namespace

std::vector<uint8_t> write_load_spec(const LoadSpec& spec) {
  Writer writer;
  writer.plain(kFormat);
  load_spec(writer, spec);
  return std::move(writer.bytes);
}

LoadSpec read_load_spec(const uint8_t* bytes, int64_t num_bytes) {
  Reader reader(bytes, num_bytes);
  uint32_t format = 0;
  reader.plain(format);
  if (format != kFormat) Reader::fail();
  LoadSpec spec;
  load_spec(reader, spec);
  reader.expect_end();
  return spec;
}

}  // namespace nds
