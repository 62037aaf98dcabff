// Checks that the operators of a program fit its values and weights: kernels trust every shape.
#include "core/program/program_check.h"

#include <string>

#include "core/error.h"
#include "core/program/packed_linear.h"
#include "core/round_up.h"

namespace nds {
namespace {

constexpr bool kTokens = false, kLogitRows = true;

int64_t pad(int64_t width) { return round_up(width, kPanel); }

// Checks operator `index`, whose handles are known to be in range.
class OpChecker {
 public:
  OpChecker(const ProgramSpec& program, int index) : program_(program), op_(program.ops[index]), index_(index) {}

  void check() const {
    switch (op_.kind) {
      case OpKind::embedding:
        return embedding();
      case OpKind::rms_norm:
        return rms_norm();
      case OpKind::linear:
        return linear();
      case OpKind::all_reduce:
        return all_reduce();
      case OpKind::head_norm:
        return head_norm();
      case OpKind::rope_and_store:
        return rope_and_store();
      case OpKind::paged_attention:
        return paged_attention();
      case OpKind::silu_mul:
        return silu_mul();
      case OpKind::add:
        expect(is_fp32(x()) && same_shape(x(), value(op_.b)) && is_fp32(value(op_.b)), "two fp32 inputs of one shape");
        return expect(is_fp32(out()) && same_shape(x(), out()), "an fp32 output of the shape of its inputs");
      case OpKind::hidden_states:
        expect(is_fp32(x()) && x().logit_rows == kTokens && x().width == program_.hidden_size, "fp32 token rows");
        return expect(vector_width(op_.weight) == pad(x().width), "a weight as wide as the input");
      case OpKind::gather_rows:
        expect(x().logit_rows == kTokens && out().logit_rows == kLogitRows, "token rows in and logit rows out");
        return expect(x().activation == out().activation && x().width == out().width, "an output like its input");
      case OpKind::sample:
        expect(is_fp32(x()) && x().logit_rows == kLogitRows, "fp32 logit rows");
        return expect(op_.num_token_ids <= x().width, "a logit for each token");
    }
  }

 private:
  void embedding() const {
    const WeightSpec& table = weight(op_.weight, WeightKind::table);
    expect(is_fp32(out()) && out().logit_rows == kTokens, "an fp32 output of token rows");
    expect(out().width == table.pieces[0].num_cols, "an output as wide as the table");
  }

  void rms_norm() const {
    expect(is_fp32(x()) && out().activation && same_shape(x(), out()), "an fp32 input and an activation of its shape");
    expect(vector_width(op_.weight) == pad(x().width), "a weight as wide as the input");
  }

  void linear() const {
    const WeightSpec& matrix = weight(op_.weight, WeightKind::linear);
    int64_t rows = 0;
    for (const TensorSlice& piece : matrix.pieces) rows += pad(piece.num_rows());
    expect(x().activation && x().width == matrix.pieces[0].num_slice_cols(), "an activation as wide as the matrix");
    expect(is_fp32(out()) && x().logit_rows == out().logit_rows, "an fp32 output with the rows of its input");
    expect(pad(out().width) == rows, "an output column for each row of the matrix");
    if (op_.bias != kNone)
      expect(!op_.partial && vector_width(op_.bias) == rows, "a bias for each column of a whole sum");
    const bool has_all_chunks = static_cast<int64_t>(matrix.chunk_edges.size()) - 1 == matrix.num_chunks;
    expect(op_.partial || has_all_chunks, "all chunks of a sum that is not partial");
  }

  void all_reduce() const {
    bool is_partial = false;
    for (int i = 0; i < index_; i++) {
      const OpSpec& other = program_.ops[i];
      if (other.kind == OpKind::linear && other.partial && other.out == op_.x) is_partial = true;
    }
    expect(is_partial, "partial sums");
    expect(is_fp32(out()) && same_shape(x(), out()), "an fp32 output of the shape of its input");
    if (op_.bias != kNone) expect(vector_width(op_.bias) == pad(x().width), "a bias as wide as the sum");
  }

  void head_norm() const {
    heads();
    const int64_t width = pad(op_.heads.head_dim);
    expect(vector_width(op_.weight) == width && vector_width(op_.k_weight) == width, "weights as wide as a head");
  }

  void rope_and_store() const {
    heads();
    const size_t half = program_.ropes[op_.rope].inv_freq.size();
    expect(half * 2 == static_cast<size_t>(op_.heads.head_dim), "a frequency for each pair of dimensions");
    const RopeSpec& rope = program_.ropes[op_.rope];
    const int64_t num_scaled = static_cast<int64_t>(rope.query_scales.size()) * rope.query_length;
    expect(rope.query_length > 0 && (num_scaled == 0 || num_scaled >= program_.max_model_len),
           "a factor of queries for each position");
    expect(is_queries(out()), "an activation of these heads");
  }

  void paged_attention() const {
    const HeadLayout& h = op_.heads;
    expect(is_queries(x()) && is_queries(out()), "activations of these heads");
    expect(h.head_dim == program_.kv.head_dim && h.num_kv_heads == program_.kv.num_kv_heads, "the heads of the cache");
    const int first = h.first_head / h.group_size, last = (h.first_head + h.num_heads - 1) / h.group_size;
    expect(h.first_kv_head <= first && last < h.first_kv_head + h.num_kv_heads, "the KV heads of its heads");
  }

  void silu_mul() const {
    const int64_t end = int64_t{op_.up_offset} + out().width;
    expect(is_fp32(x()) && out().activation && x().logit_rows == out().logit_rows, "an fp32 input and an activation");
    expect(out().width <= op_.up_offset && end <= x().width, "gate and up inside its input");
  }

  // x holds q, k and v side by side, for the heads of the cache.
  void heads() const {
    const HeadLayout& h = op_.heads;
    const auto fits = [&](int offset, int count) { return offset + int64_t{count} * h.head_dim <= x().width; };
    expect(is_fp32(x()) && x().logit_rows == kTokens, "an fp32 input of token rows");
    expect(fits(h.q_offset, h.num_heads) && fits(h.k_offset, h.num_kv_heads) && fits(h.v_offset, h.num_kv_heads),
           "q, k and v inside its input");
    expect(h.head_dim == program_.kv.head_dim && h.num_kv_heads == program_.kv.num_kv_heads, "the heads of the cache");
  }

  bool is_queries(const ValueSpec& spec) const {
    return spec.activation && spec.logit_rows == kTokens && spec.width == op_.heads.num_heads * op_.heads.head_dim;
  }
  static bool is_fp32(const ValueSpec& spec) { return !spec.activation; }
  static bool same_shape(const ValueSpec& a, const ValueSpec& b) {
    return a.logit_rows == b.logit_rows && a.width == b.width;
  }

  const ValueSpec& value(int id) const { return program_.values[id]; }
  const ValueSpec& x() const { return value(op_.x); }
  const ValueSpec& out() const { return value(op_.out); }
  const WeightSpec& weight(int id, WeightKind kind) const {
    expect(program_.weights[id].kind == kind, "weights of its kind");
    return program_.weights[id];
  }
  int64_t vector_width(int id) const {
    int64_t width = 0;
    for (const TensorSlice& piece : weight(id, WeightKind::vector).pieces) width += pad(piece.num_slice_cols());
    return width;
  }

  void expect(bool condition, const char* expected) const {
    if (!condition) {
      throw Error("ERR_INTERNAL", "Expected " + std::string(expected) + " for operator " + std::to_string(index_) +
                                      " but received something else");
    }
  }

  const ProgramSpec& program_;
  const OpSpec& op_;
  const int index_;
};

void check_weight(const WeightSpec& weight) {
  for (const TensorSlice& piece : weight.pieces) {
    // A vector becomes fp32; a conversion to another type must keep every value, unless it quantizes.
    const DType kept = weight.kind == WeightKind::linear ? row_dtype(weight.format) : weight.dtype;
    const bool keeps =
        weight.kind == WeightKind::vector ? !piece.is_encoded() : piece.dtype == kept || kept == DType::f32;
    if (!keeps) throw Error("ERR_INTERNAL", "Expected a type that keeps the values of " + piece.name);
    const bool whole_rows = piece.col_begin == 0 && piece.col_end == piece.num_cols;
    if ((weight.kind == WeightKind::vector && piece.num_rows() != 1) ||
        (weight.kind == WeightKind::table && !whole_rows)) {
      throw Error("ERR_INTERNAL",
                  "Expected one row for a vector and whole rows for a table but received a part of " + piece.name);
    }
  }
}

}  // namespace

void check_program(const ProgramSpec& program) {
  for (const WeightSpec& weight : program.weights) check_weight(weight);
  if (program.kv.head_dim % 2 != 0) {
    throw Error("ERR_INTERNAL", "Expected an even headDim but received " + std::to_string(program.kv.head_dim));
  }
  for (size_t i = 0; i < program.ops.size(); i++) OpChecker(program, static_cast<int>(i)).check();
}

}  // namespace nds
