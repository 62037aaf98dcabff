// Paged attention on the device: sequences, their cache, passes over it, and expected results in double precision.
#pragma once
#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>

#include "cuda/kernels.h"
#include "harness.h"

namespace nds::cuda::test {

struct Model {
  HeadLayout heads;
  DType dtype = DType::f32;
  KvDtype kv_dtype = KvDtype::activation;
  int block_size = 32, sliding_window = 0;
  float scale = 0;
};

inline float rounded(float value, DType dtype) { return dtype == DType::bf16 ? from_bf16(to_bf16(value)) : value; }

// q, k and v of each token of a sequence, as numbers that the types of the device hold exactly.
struct Sequence {
  int length;
  std::vector<float> q;                   // [length, num_heads * head_dim]
  std::vector<float> k, v;                // [length, num_kv_heads, head_dim]; integers where the cache is int8
  std::vector<float> k_scales, v_scales;  // [length, num_kv_heads]
};

// period > 0: values of a run of `period` keys cancel those of the run before, or are small, so that the result depends
// on the order of sums even after it is rounded to bf16. The scales of an int8 cache follow.
inline Sequence random_sequence(const Model& model, int length, int period = 0) {
  Sequence sequence;
  const size_t heads = static_cast<size_t>(length) * model.heads.num_kv_heads;
  sequence.length = length;
  sequence.q = normals(static_cast<size_t>(length) * model.heads.num_heads * model.heads.head_dim, 2);
  for (float& value : sequence.q) value = rounded(value, model.dtype);
  for (auto* values : {&sequence.k, &sequence.v}) {
    *values = normals(heads * model.heads.head_dim);
    for (float& value : *values)
      value = model.kv_dtype == KvDtype::int8 ? static_cast<float>(any(-127, 127)) : rounded(value, model.dtype);
  }
  for (auto* scales : {&sequence.k_scales, &sequence.v_scales}) {
    *scales = std::vector<float>(heads, 1);
    if (model.kv_dtype == KvDtype::int8)
      for (float& scale : *scales) scale = std::fabs(normal(0.01f)) + 0.001f;
  }
  const size_t width = model.heads.head_dim, stride = static_cast<size_t>(period) * model.heads.num_kv_heads;
  for (size_t row = 0; period > 0 && row < heads; row++) {
    const size_t run = row / stride % 3;
    if (run == 2 && model.kv_dtype == KvDtype::int8) sequence.v_scales[row] *= 1.0f / 4096;
    if (run == 1) sequence.k_scales[row] = sequence.k_scales[row - stride];
    if (run == 1) sequence.v_scales[row] = sequence.v_scales[row - stride];
    for (size_t d = row * width; d < (row + 1) * width; d++) {
      if (run == 2 && model.kv_dtype != KvDtype::int8) sequence.v[d] *= 1.0f / 4096;
      if (run == 1) sequence.k[d] = sequence.k[d - stride * width];
      if (run == 1) sequence.v[d] = -sequence.v[d - stride * width];
    }
  }
  return sequence;
}

inline Model random_model(DType dtype, KvDtype kv_dtype, int head_dim) {
  Model model;
  const int group = any(1, 8), num_kv_heads = any(1, 2);
  model.heads.head_dim = head_dim;
  model.heads.group_size = group;
  model.heads.num_kv_heads = num_kv_heads;
  model.heads.first_kv_head = any(0, 2);
  // Some heads of the first and the last group may be on other ranks.
  const int first = num_kv_heads > 1 || any(0, 1) == 0 ? any(0, group - 1) : 0;
  const int last = num_kv_heads > 1 ? any(0, group - 1) : any(first, group - 1);
  model.heads.first_head = model.heads.first_kv_head * group + first;
  model.heads.num_heads = (num_kv_heads - 1) * group + last + 1 - first;
  model.dtype = dtype;
  model.kv_dtype = kv_dtype;
  model.block_size = any(0, 1) == 0 ? 32 : 64;
  model.sliding_window = any(0, 1) == 0 ? any(1, 300) : 0;
  model.scale = static_cast<float>(any(5, 15) * 0.1 / std::sqrt(head_dim));
  return model;
}

// Query tokens [begin, end) of a sequence in a pass.
struct Piece {
  int seq, begin, end;
};

// How a pass is run, which must not change a bit of the results.
struct Pass {
  int padding_seqs = 0, padding_tokens = 0;
  int64_t max_partial_bytes = int64_t{96} << 20;
  int repeats = 1;
  bool shares_blocks = false;  // that are full, between pieces of one sequence
};

// The cache of a layer with the given pieces' tokens, in shuffled blocks; all else is poison.
struct Cache {
  KvCache kv;
  std::vector<uint8_t> bytes;
  std::vector<int32_t> first_blocks, block_tables;
};

inline void store(uint8_t* panel, size_t at, float value, const Model& model) {
  if (model.kv_dtype == KvDtype::int8)
    reinterpret_cast<int8_t*>(panel)[at] = static_cast<int8_t>(value);
  else if (model.dtype == DType::bf16)
    reinterpret_cast<uint16_t*>(panel)[at] = to_bf16(value);
  else
    reinterpret_cast<float*>(panel)[at] = value;
}

inline Cache make_cache(const Model& model, const std::vector<Sequence>& sequences, const std::vector<Piece>& pieces,
                        bool shares_blocks) {
  Cache cache;
  KvCache& kv = cache.kv;
  const int head_dim = model.heads.head_dim, block_size = model.block_size;
  kv.dtype = model.dtype;
  kv.kv_dtype = model.kv_dtype;
  kv.block_size = block_size;
  kv.num_kv_heads = model.heads.num_kv_heads;
  kv.head_dim = head_dim;
  for (const Piece& piece : pieces) kv.num_blocks += (piece.end + block_size - 1) / block_size + 1;
  kv.tile_bytes = (2 * kv.panel_bytes() + (kv.kv_dtype == KvDtype::int8 ? 8 * block_size : 0) + 15) / 16 * 16;
  kv.block_stride = kv.tile_bytes * kv.num_kv_heads + 16 * any(0, 3);
  cache.bytes.assign(kv.block_stride * kv.num_blocks, 0xff);
  std::vector<int32_t> blocks(kv.num_blocks);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::shuffle(blocks.begin(), blocks.end(), engine);
  std::map<std::pair<int, int>, int32_t> shared;
  for (const Piece& piece : pieces) {
    const Sequence& sequence = sequences[piece.seq];
    const size_t table = cache.block_tables.size();
    cache.first_blocks.push_back(static_cast<int32_t>(table));
    for (int i = 0; i < (piece.end + block_size - 1) / block_size; i++) {
      const bool is_shared = shares_blocks && (i + 1) * block_size <= piece.end;
      const auto found = shared.find({piece.seq, i});
      cache.block_tables.push_back(is_shared && found != shared.end() ? found->second : blocks.back());
      if (cache.block_tables.back() == blocks.back()) blocks.pop_back();
      if (is_shared) shared[{piece.seq, i}] = cache.block_tables.back();
    }
    for (int i = any(0, 2); i > 0; i--) cache.block_tables.push_back(-1);
    for (int t = 0; t < piece.end; t++) {
      for (int h = 0; h < kv.num_kv_heads; h++) {
        uint8_t* tile =
            cache.bytes.data() + cache.block_tables[table + t / block_size] * kv.block_stride + h * kv.tile_bytes;
        const size_t row = static_cast<size_t>(t % block_size) * head_dim,
                     from = static_cast<size_t>(t) * kv.num_kv_heads + h;
        for (int d = 0; d < head_dim; d++) {
          store(tile, row + d, sequence.k[from * head_dim + d], model);
          store(tile + kv.panel_bytes(), row + d, sequence.v[from * head_dim + d], model);
        }
        if (model.kv_dtype != KvDtype::int8) continue;
        float* scales = reinterpret_cast<float*>(tile + 2 * kv.panel_bytes());
        scales[t % block_size] = sequence.k_scales[from];
        scales[block_size + t % block_size] = sequence.v_scales[from];
      }
    }
  }
  return cache;
}

// The elements of an activation as fp32.
inline std::vector<float> activations(const Device<uint8_t>& device, DType dtype) {
  const std::vector<uint8_t> bytes = device.read();
  std::vector<float> values(bytes.size() / dtype_size(dtype));
  for (size_t i = 0; i < values.size(); i++) {
    uint16_t half;
    std::memcpy(&half, &bytes[i * 2], 2);
    if (dtype == DType::bf16)
      values[i] = from_bf16(half);
    else
      std::memcpy(&values[i], &bytes[i * 4], 4);
  }
  return values;
}

// Results [tokens of the piece, num_heads * head_dim] of each piece.
inline std::vector<std::vector<float>> run(const Model& model, const std::vector<Sequence>& sequences,
                                           const std::vector<Piece>& pieces, const Pass& pass) {
  const int width = model.heads.num_heads * model.heads.head_dim, size = static_cast<int>(dtype_size(model.dtype));
  const int ld = (width + 31) / 32 * 32 + 32 * any(0, 1);
  Cache cache = make_cache(model, sequences, pieces, pass.shares_blocks);
  std::vector<int32_t> cu_query_lens{0}, context_lens;
  AttentionArgs args{};
  for (const Piece& piece : pieces) {
    cu_query_lens.push_back(cu_query_lens.back() + piece.end - piece.begin);
    context_lens.push_back(piece.end);
    args.batch.max_query_len = std::max(args.batch.max_query_len, piece.end - piece.begin);
    args.batch.max_context_len = std::max(args.batch.max_context_len, piece.end);
  }
  const int num_tokens = cu_query_lens.back();
  args.batch.max_seqs = static_cast<int>(pieces.size()) + pass.padding_seqs;
  args.batch.max_tokens = num_tokens + pass.padding_tokens;
  std::vector<uint8_t> q(static_cast<size_t>(args.batch.max_tokens) * ld * size, 0);
  int token = 0;
  for (const Piece& piece : pieces) {
    for (int t = piece.begin; t < piece.end; t++, token++) {
      for (int i = 0; i < width; i++)
        store(q.data() + static_cast<size_t>(token) * ld * size, i,
              sequences[piece.seq].q[static_cast<size_t>(t) * width + i], {model.heads, model.dtype});
    }
  }
  Device<int32_t> num_seqs_(std::vector<int32_t>{static_cast<int32_t>(pieces.size())}), cu_query_lens_(cu_query_lens),
      context_lens_(context_lens), first_blocks_(cache.first_blocks), block_tables_(cache.block_tables);
  Device<uint8_t> cache_(cache.bytes), q_(q), out_(q.size());
  AttentionLimits limits{.max_seqs = args.batch.max_seqs + any(0, 2),
                         .max_tokens = args.batch.max_tokens + any(0, 50),
                         .max_model_len = args.batch.max_context_len + any(0, 200),
                         .num_heads = model.heads.num_heads,
                         .num_kv_heads = model.heads.num_kv_heads,
                         .group_size = model.heads.group_size,
                         .head_dim = model.heads.head_dim,
                         .dtype = model.dtype,
                         .kv_dtype = model.kv_dtype,
                         .max_partial_bytes = pass.max_partial_bytes};
  Device<uint8_t> plan_(static_cast<size_t>(attention_plan_bytes(limits))),
      scratch_(static_cast<size_t>(attention_scratch_bytes(limits)));
  args.batch.num_seqs = num_seqs_.data;
  args.batch.cu_query_lens = cu_query_lens_.data;
  args.batch.context_lens = context_lens_.data;
  args.batch.first_blocks = first_blocks_.data;
  args.batch.block_tables = block_tables_.data;
  args.batch.plan = plan_.data;
  args.q = q_.data;
  args.ldq = args.ld_out = ld;
  args.kv = cache.kv;
  args.kv.base = cache_.data;
  args.heads = model.heads;
  args.scale = model.scale;
  args.sliding_window = model.sliding_window;
  args.out = out_.data;
  args.scratch = scratch_.data;
  plan_attention(args.batch, limits, place());
  std::vector<float> out;
  for (int i = 0; i < pass.repeats; i++) {
    must(cudaMemsetAsync(out_.data, 0xff, out_.size, stream));
    paged_attention(args, limits, place());
    must(cudaGetLastError());
    const std::vector<float> values = activations(out_, model.dtype);
    if (i > 0)
      expect_same("run twice", std::vector<float>(values.begin(), values.begin() + int64_t{num_tokens} * ld),
                  std::vector<float>(out.begin(), out.begin() + int64_t{num_tokens} * ld));
    out = values;
  }
  std::vector<std::vector<float>> results;
  bool is_padded = true;
  token = 0;
  for (const Piece& piece : pieces) {
    results.emplace_back();
    for (int t = piece.begin; t < piece.end; t++, token++) {
      const float* row = &out[static_cast<size_t>(token) * ld];
      results.back().insert(results.back().end(), row, row + width);
      for (int i = width; i < ld; i++) is_padded = is_padded && row[i] == 0;
    }
  }
  note(is_padded, "zeros behind the rows");
  for (size_t i = static_cast<size_t>(num_tokens) * ld; i < out.size(); i++) {
    if (out[i] == out[i]) return note(false, "a row past the last token was written"), results;
  }
  return results;
}

// Token t of a sequence, all heads: results, and sum of p |v| / sum of p.
struct Expected {
  std::vector<float> out, magnitudes;
};
inline Expected expected(const Model& model, const Sequence& sequence, int t) {
  const HeadLayout& heads = model.heads;
  Expected result;
  for (int h = 0; h < heads.num_heads; h++) {
    const int kv_head = (heads.first_head + h) / heads.group_size - heads.first_kv_head;
    const float* q = &sequence.q[(static_cast<size_t>(t) * heads.num_heads + h) * heads.head_dim];
    std::vector<double> sums(heads.head_dim, 0), magnitudes(heads.head_dim, 0), scores(t + 1, -INFINITY);
    double largest = -INFINITY, total = 0;
    for (int j = 0; j <= t; j++) {
      if (model.sliding_window > 0 && t - j >= model.sliding_window) continue;
      const size_t row = static_cast<size_t>(j) * heads.num_kv_heads + kv_head;
      scores[j] = 0;
      for (int d = 0; d < heads.head_dim; d++) scores[j] += double{q[d]} * sequence.k[row * heads.head_dim + d];
      scores[j] *= double{model.scale} * sequence.k_scales[row];
      largest = std::max(largest, scores[j]);
    }
    for (int j = 0; j <= t; j++) {
      const size_t row = static_cast<size_t>(j) * heads.num_kv_heads + kv_head;
      const double p = std::exp(scores[j] - largest);
      total += p;
      for (int d = 0; d < heads.head_dim; d++) {
        const double product = p * sequence.v_scales[row] * sequence.v[row * heads.head_dim + d];
        sums[d] += product;
        magnitudes[d] += std::fabs(product);
      }
    }
    for (double sum : sums) result.out.push_back(static_cast<float>(sum / total));
    for (double sum : magnitudes) result.magnitudes.push_back(static_cast<float>(sum / total));
  }
  return result;
}

}  // namespace nds::cuda::test
