// Paged attention against a plain loop in double precision, and bit for bit against itself: in other batches, in
// chunks, by either tensor core kernel, split between blocks or not.
#include "attention_problem.h"

namespace nds::cuda::test {
namespace {

// Of bf16, p and the result are rounded, each by at most 2^-8 of itself; the rest is fp32.
void compare(const std::string& what, const Model& model, const std::vector<Sequence>& sequences,
             const std::vector<Piece>& pieces, const std::vector<std::vector<float>>& got) {
  const float unit = model.dtype == DType::bf16 ? 1.0f / 256 : 0, slack = 1e-5f;
  size_t num_far = 0, num_values = 0;
  for (size_t i = 0; i < pieces.size(); i++) {
    for (int t = pieces[i].begin; t < pieces[i].end; t++) {
      const Expected want = expected(model, sequences[pieces[i].seq], t);
      const float* row = &got[i][(t - pieces[i].begin) * want.out.size()];
      for (size_t d = 0; d < want.out.size(); d++, num_values++) {
        const float bound = unit * (want.magnitudes[d] + std::fabs(want.out[d])) + slack * (1 + want.magnitudes[d]);
        if (!(std::fabs(row[d] - want.out[d]) <= bound)) num_far++;
      }
    }
  }
  note(num_far == 0, what + ": " + std::to_string(num_far) + " of " + std::to_string(num_values) + " are off");
}

std::string describe(const Model& model) {
  return std::string(model.kv_dtype == KvDtype::int8 ? "int8 " : "") + (model.dtype == DType::bf16 ? "bf16" : "f32") +
         " head_dim " + std::to_string(model.heads.head_dim) + " group " + std::to_string(model.heads.group_size) +
         " heads " + std::to_string(model.heads.first_head) + "+" + std::to_string(model.heads.num_heads) +
         " kv heads " + std::to_string(model.heads.num_kv_heads) + " window " + std::to_string(model.sliding_window);
}

// A mixed batch; then each piece alone, or cut in chunks with its last token by itself: the same bits.
void check_model(const Model& model, int max_query_len, int max_context_len) {
  std::vector<Sequence> sequences;
  std::vector<Piece> pieces;
  const int num_seqs = any(1, 4), period = model.dtype == DType::bf16 ? 32 << any(0, 2) : 0;
  for (int i = 0; i < num_seqs; i++) {
    const int length = any(0, 3) == 0 ? any(1, 40) : any(1, max_context_len);
    const int query_len = std::min(length, any(0, 1) == 0 ? any(1, 5) : any(1, max_query_len));
    sequences.push_back(random_sequence(model, length, any(0, 1) * period));
    pieces.push_back({i, length - query_len, length});
  }
  const std::string what = describe(model);
  const auto whole = run(model, sequences, pieces, {any(0, 2), any(0, 9), int64_t{96} << 20, 2});
  compare(what, model, sequences, pieces, whole);
  const int width = model.heads.num_heads * model.heads.head_dim;
  for (const Piece& piece : pieces) {
    const std::vector<float>& want = whole[&piece - pieces.data()];
    const auto alone = run(model, sequences, {piece}, {0, 0, any(0, 1) == 0 ? 0 : int64_t{any(1, 100000)}, 1})[0];
    expect_same(what + " alone", alone, want);
    const int query_len = piece.end - piece.begin;
    if (query_len == 1) continue;
    // Chunks, and last the final token by itself.
    const int middle = piece.begin + any(0, query_len - 1);
    std::vector<float> joined;
    for (const Piece& chunk : {Piece{piece.seq, piece.begin, middle}, Piece{piece.seq, middle, piece.end - 1},
                               Piece{piece.seq, piece.end - 1, piece.end}}) {
      if (chunk.begin == chunk.end) continue;
      const auto part = run(model, sequences, {chunk}, {})[0];
      joined.insert(joined.end(), part.begin(), part.end());
    }
    expect_same(what + " in chunks, " + std::to_string(joined.size() / width) + " tokens", joined, want);
  }
}

// All tokens of a prompt in one pass, and each as a decoding sequence, on blocks of its own and on shared ones. There
// are enough results that a difference of 1 ulp in the fp32 sum of a row changes some of them after rounding to bf16.
void check_decode(KvDtype kv_dtype, int head_dim, int num_queries, int period) {
  Model model = random_model(DType::bf16, kv_dtype, head_dim);
  model.heads = {head_dim, 0, 16, 0, 2, 8};
  model.sliding_window = any(0, 1) * any(100, 250);
  const int length = num_queries + any(100, 160);
  const std::vector<Sequence> sequences{random_sequence(model, length, period)};
  std::vector<Piece> tokens;
  for (int t = length - num_queries; t < length; t++) tokens.push_back({0, t, t + 1});
  const auto prompt = run(model, sequences, {{0, length - num_queries, length}}, {})[0];
  for (const bool shares_blocks : {false, true}) {
    std::vector<float> decoded;
    for (const auto& row : run(model, sequences, tokens, {.shares_blocks = shares_blocks}))
      decoded.insert(decoded.end(), row.begin(), row.end());
    const std::string what = shares_blocks ? "decode on shared blocks" : "decode";
    expect_same(what + " and prefill, " + describe(model), decoded, prompt);
  }
}

void repeat(int times, void (*test)()) {
  for (int i = 0; i < times; i++) test();
}

CUDA_TEST(attention_f32) {
  repeat(2, [] { check_model(random_model(DType::f32, KvDtype::activation, any(1, 40) * 2), 30, 300); });
}
CUDA_TEST(attention_int8_plain) {
  repeat(2, [] {
    const bool is_f32 = any(0, 1) == 0;
    check_model(random_model(is_f32 ? DType::f32 : DType::bf16, KvDtype::int8, any(1, is_f32 ? 32 : 31) * 2), 20, 300);
  });
}
CUDA_TEST(attention_bf16_plain) {
  repeat(2, [] {
    check_model(random_model(DType::bf16, KvDtype::activation, any(0, 3) == 0 ? 256 : any(1, 31) * 2), 20, 300);
  });
}
CUDA_TEST(attention_bf16_64) {
  repeat(4, [] { check_model(random_model(DType::bf16, KvDtype::activation, 64), 70, 400); });
}
CUDA_TEST(attention_bf16_128) {
  repeat(2, [] { check_model(random_model(DType::bf16, KvDtype::activation, 128), 40, 300); });
}
CUDA_TEST(attention_int8_64) {
  repeat(3, [] { check_model(random_model(DType::bf16, KvDtype::int8, 64), 70, 400); });
}
CUDA_TEST(attention_int8_128) {
  repeat(2, [] { check_model(random_model(DType::bf16, KvDtype::int8, 128), 40, 300); });
}
CUDA_TEST(attention_large_group) {
  for (const KvDtype kv_dtype : {KvDtype::activation, KvDtype::int8}) {
    Model model = random_model(DType::bf16, kv_dtype, 64);
    model.heads = {64, 3, 70, 0, 1, 75};
    check_model(model, 3, 300);
  }
}
CUDA_TEST(attention_decode_bits) {
  check_decode(KvDtype::activation, 64, 300, 0);
  check_decode(KvDtype::activation, 128, 20, 64);
}
CUDA_TEST(attention_int8_decode_bits) {
  check_decode(KvDtype::int8, 64, 300, 0);
  check_decode(KvDtype::int8, 128, 40, 64);
}

}  // namespace
}  // namespace nds::cuda::test
