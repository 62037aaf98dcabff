// Rotary embedding, the KV cache and attention on plain arrays. The cache is filled and read here by the layout of
// cpu/kv_view.h, one element at a time, so that operators are tested against the layout and not against each other.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "addon/testing/arrays.h"
#include "core/convert.h"
#include "core/memory.h"
#include "cpu/kv_view.h"
#include "cpu/thread_pool.h"

namespace nds::addon {
namespace {

// A cache of one layer.
class TestKv {
 public:
  TestKv(const Napi::Object& options, DType dtype) {
    view_.dtype = dtype;
    view_.kv_dtype = kv_dtype_of(options, dtype);
    view_.num_blocks = get_int(options, "numBlocks");
    view_.block_size = get_int(options, "blockSize");
    view_.num_kv_heads = get_int(options, "numKvHeads");
    view_.head_dim = get_int(options, "headDim");
    view_.padded_head_dim = (view_.head_dim + 15) / 16 * 16;
    view_.panel_bytes = cpu::kRun * view_.padded_head_dim * size();
    view_.run_bytes = view_.panel_bytes * 2 + (is_int8() ? 2 * cpu::kRun * 4 : 0);
    view_.tile_bytes = view_.run_bytes * (view_.block_size / cpu::kRun);
    // Larger than the tiles of one layer, so that a kernel that ignores the stride fails.
    view_.block_stride = view_.tile_bytes * (view_.num_kv_heads + 1);
    memory_ = HugeMemory(static_cast<size_t>(view_.block_stride * view_.num_blocks), "a test cache");
    view_.base = memory_.data();
  }

  const cpu::KvView& view() const { return view_; }
  bool is_int8() const { return view_.kv_dtype == KvDtype::int8; }
  int64_t num_slots() const { return int64_t{view_.num_blocks} * view_.block_size; }

  uint8_t* k(int64_t slot, int head, int d) const {
    const int64_t token = slot % cpu::kRun;
    const int64_t index =
        is_paired() ? (int64_t{d} / 2 * cpu::kRun + token) * 2 + d % 2 : int64_t{d} * cpu::kRun + token;
    return run(slot, head) + index * size();
  }
  uint8_t* v(int64_t slot, int head, int d) const {
    const int64_t token = slot % cpu::kRun, width = view_.padded_head_dim;
    const int64_t index = is_paired() ? (token / 2 * width + d) * 2 + token % 2 : token * width + d;
    return run(slot, head) + view_.panel_bytes + index * size();
  }
  // Scale of a token's K or V in an int8 cache.
  float* scale(int64_t slot, int head, bool values) const {
    float* scales = reinterpret_cast<float*>(run(slot, head) + view_.panel_bytes * 2);
    return scales + (values ? cpu::kRun : 0) + slot % cpu::kRun;
  }

  // Sets each element of each token, as in a cache that other sequences have used.
  void fill(float value) {
    const std::vector<float> row(static_cast<size_t>(view_.num_kv_heads) * view_.head_dim, value);
    for (int64_t slot = 0; slot < num_slots(); slot++) write(slot, row.data(), row.data());
  }

  // keys, values: [num_kv_heads, head_dim].
  void write(int64_t slot, const float* keys, const float* values) {
    for (int head = 0; head < view_.num_kv_heads; head++) {
      write_row(slot, head, false, keys + int64_t{head} * view_.head_dim);
      write_row(slot, head, true, values + int64_t{head} * view_.head_dim);
    }
  }

  // K or V [num_slots, num_kv_heads, padded_head_dim]; the integers of an int8 cache.
  Napi::Float32Array read(Napi::Env env, bool values) const {
    const int64_t width = int64_t{view_.num_kv_heads} * view_.padded_head_dim;
    Napi::Float32Array result = Napi::Float32Array::New(env, static_cast<size_t>(num_slots() * width));
    float* out = result.Data();
    for (int64_t slot = 0; slot < num_slots(); slot++) {
      for (int head = 0; head < view_.num_kv_heads; head++) {
        for (int d = 0; d < view_.padded_head_dim; d++) {
          const uint8_t* element = values ? v(slot, head, d) : k(slot, head, d);
          if (is_int8()) {
            *out++ = static_cast<int8_t>(*element);
          } else {
            widen(element, element_dtype(), 1, out++);
          }
        }
      }
    }
    return result;
  }
  // Scales [num_slots, num_kv_heads] of K or V of an int8 cache.
  Napi::Float32Array read_scales(Napi::Env env, bool values) const {
    Napi::Float32Array result = Napi::Float32Array::New(env, static_cast<size_t>(num_slots() * view_.num_kv_heads));
    for (int64_t i = 0; i < num_slots() * view_.num_kv_heads; i++)
      result.Data()[i] = *scale(i / view_.num_kv_heads, static_cast<int>(i % view_.num_kv_heads), values);
    return result;
  }

 private:
  static KvDtype kv_dtype_of(const Napi::Object& options, DType dtype) {
    if (get_string(options, "kvDtype") == "int8") return KvDtype::int8;
    return get_dtype(options, "kvDtype") == dtype ? KvDtype::activation : KvDtype::bf16;
  }

  // Of elements, unless they are int8.
  DType element_dtype() const { return view_.kv_dtype == KvDtype::bf16 ? DType::bf16 : view_.dtype; }
  int64_t size() const { return is_int8() ? 1 : static_cast<int64_t>(dtype_size(element_dtype())); }
  // Whether two dimensions (of K) or tokens (of V) are interleaved.
  bool is_paired() const { return element_dtype() == DType::bf16 && !is_int8(); }

  void write_row(int64_t slot, int head, bool is_v, const float* row) {
    const auto cell = [&](int d) { return is_v ? v(slot, head, d) : k(slot, head, d); };
    float most = 0;
    for (int d = 0; d < view_.head_dim; d++) most = std::max(most, std::fabs(row[d]));
    const float step = most / 127.0f;
    if (is_int8()) *scale(slot, head, is_v) = step;
    for (int d = 0; d < view_.head_dim; d++) {
      if (is_int8()) {
        *cell(d) = static_cast<uint8_t>(step == 0 ? 0 : static_cast<int8_t>(std::nearbyint(row[d] / step)));
      } else {
        store_rounded(row[d], element_dtype(), cell(d));
      }
    }
  }

  uint8_t* run(int64_t slot, int head) const {
    const int64_t block = slot / view_.block_size;
    return view_.base + block * view_.block_stride + head * view_.tile_bytes +
           slot % view_.block_size / cpu::kRun * view_.run_bytes;
  }

  cpu::KvView view_;
  HugeMemory memory_;
};

// ropeTable({ positions, invFreq [halfDim], halfDim, scale }) → { cos, sin }, [positions, halfDim] each.
Napi::Value rope_table(Napi::Env env, const Napi::Object& options) {
  const std::vector<int32_t> positions = get_ints(options, "positions");
  const int half_dim = get_int(options, "halfDim");
  TestMatrix cos(static_cast<int64_t>(positions.size()), half_dim, DType::f32);
  TestMatrix sin(static_cast<int64_t>(positions.size()), half_dim, DType::f32);
  const cpu::RopeTableArgs args{.positions = positions.data(),
                                .rows = static_cast<int>(positions.size()),
                                .inv_freq = get_floats(options, "invFreq", half_dim).Data(),
                                .half_dim = half_dim,
                                .scale = get_float(options, "scale"),
                                .cos = cos.f32(),
                                .sin = sin.f32()};
  cpu::ThreadPool pool(get_int(options, "numThreads"));
  const cpu::Kernels& kernels = get_kernels(options);
  pool.run([&](int tid) { kernels.rope_table(args, tid, pool.size()); });
  Napi::Object result = Napi::Object::New(env);
  result.Set("cos", cos.to_js_array(env));
  result.Set("sin", sin.to_js_array(env));
  return result;
}

// ropeAndStore({ dtype, rows, width, qkv [rows, width], numHeads, qOffset, kOffset, vOffset, cos, sin [rows, headDim /
// 2], kvSlots, numBlocks, blockSize, numKvHeads, headDim, kvDtype }) → { q [rows, padded width], k, v [slots,
// numKvHeads, padded headDim] }; for an int8 cache the integers, and kScales, vScales [slots, numKvHeads].
Napi::Value rope_and_store(Napi::Env env, const Napi::Object& options) {
  const DType dtype = get_dtype(options, "dtype");
  const TestKv kv(options, dtype);
  const int rows = get_int(options, "rows"), width = get_int(options, "width");
  const int num_heads = get_int(options, "numHeads"), half = kv.view().head_dim / 2;
  TestMatrix qkv(get_floats(options, "qkv", int64_t{rows} * width), rows, width, width, DType::f32);
  TestMatrix q(rows, padded_width(int64_t{num_heads} * kv.view().head_dim), dtype);
  const std::vector<int32_t> narrow_slots = get_ints(options, "kvSlots");
  const std::vector<int64_t> slots(narrow_slots.begin(), narrow_slots.end());
  const cpu::RopeAndStoreArgs args{.qkv = qkv.f32(),
                                   .ld = width,
                                   .rows = rows,
                                   .num_heads = num_heads,
                                   .q_offset = get_int(options, "qOffset"),
                                   .k_offset = get_int(options, "kOffset"),
                                   .v_offset = get_int(options, "vOffset"),
                                   .cos = get_floats(options, "cos", int64_t{rows} * half).Data(),
                                   .sin = get_floats(options, "sin", int64_t{rows} * half).Data(),
                                   .kv = kv.view(),
                                   .kv_slots = slots.data(),
                                   .q_out = q.data(),
                                   .ld_q = q.ld()};
  cpu::ThreadPool pool(get_int(options, "numThreads"));
  const cpu::Kernels& kernels = get_kernels(options);
  pool.run([&](int tid) { kernels.rope_and_store(args, tid, pool.size()); });
  Napi::Object result = Napi::Object::New(env);
  result.Set("q", q.to_js_array(env));
  result.Set("k", kv.read(env, false));
  result.Set("v", kv.read(env, true));
  if (kv.is_int8()) {
    result.Set("kScales", kv.read_scales(env, false));
    result.Set("vScales", kv.read_scales(env, true));
  }
  return result;
}

// Writes the contexts of all sequences to their blocks. k and v [sum of context_lens, numKvHeads * headDim] hold them
// one after the other.
void write_contexts(const Napi::Object& options, const std::vector<int32_t>& context_lens,
                    const std::vector<int32_t>& blocks, const std::vector<int32_t>& cu_blocks, TestKv& kv) {
  const cpu::KvView& view = kv.view();
  int64_t num_tokens = 0;
  for (const int32_t length : context_lens) num_tokens += length;
  const int64_t width = int64_t{view.num_kv_heads} * view.head_dim;
  const float* keys = get_floats(options, "k", num_tokens * width).Data();
  const float* values = get_floats(options, "v", num_tokens * width).Data();
  for (size_t seq = 0; seq < context_lens.size(); seq++) {
    for (int position = 0; position < context_lens[seq]; position++, keys += width, values += width) {
      const int64_t block = blocks.at(cu_blocks.at(seq) + position / view.block_size);
      if (block >= 0) kv.write(block * view.block_size + position % view.block_size, keys, values);
    }
  }
}

// pagedAttention({ dtype, q [tokens, numHeads * headDim], k, v, cuQueryLens, contextLens, blockTables, cuBlocks,
// numBlocks, blockSize, numKvHeads, headDim, numHeads, firstHead, groupSize, firstKvHead, scale, slidingWindow,
// kvDtype, stale }) → [tokens, padded width]. stale: the value of the cache where no context was written. A block of -1
// is freed and must not be read.
Napi::Value paged_attention(Napi::Env env, const Napi::Object& options) {
  const DType dtype = get_dtype(options, "dtype");
  TestKv kv(options, dtype);
  const std::vector<int32_t> cu_query_lens = get_ints(options, "cuQueryLens");
  const std::vector<int32_t> context_lens = get_ints(options, "contextLens");
  const std::vector<int32_t> blocks = get_ints(options, "blockTables"), cu_blocks = get_ints(options, "cuBlocks");
  kv.fill(get_float(options, "stale"));
  write_contexts(options, context_lens, blocks, cu_blocks, kv);
  const int num_tokens = cu_query_lens.back(), num_heads = get_int(options, "numHeads");
  const int64_t width = int64_t{num_heads} * kv.view().head_dim;
  TestMatrix q(get_floats(options, "q", num_tokens * width), num_tokens, width, padded_width(width), dtype);
  TestMatrix out(num_tokens, padded_width(width), dtype);
  cpu::ThreadPool pool(get_int(options, "numThreads"));
  const cpu::Kernels& kernels = get_kernels(options);
  const int64_t scratch_bytes = kernels.attention_scratch_bytes(kv.view());
  const HugeMemory scratch(static_cast<size_t>(scratch_bytes * pool.size()), "test scratch");
  std::memset(scratch.data(), 0xff, scratch.size());
  const cpu::AttentionArgs args{.q = q.data(),
                                .ldq = q.ld(),
                                .num_seqs = static_cast<int>(context_lens.size()),
                                .cu_query_lens = cu_query_lens.data(),
                                .context_lens = context_lens.data(),
                                .block_tables = blocks.data(),
                                .first_blocks = cu_blocks.data(),
                                .kv = kv.view(),
                                .num_heads = num_heads,
                                .first_head = get_int(options, "firstHead"),
                                .group_size = get_int(options, "groupSize"),
                                .first_kv_head = get_int(options, "firstKvHead"),
                                .scale = get_float(options, "scale"),
                                .sliding_window = get_int(options, "slidingWindow"),
                                .out = out.data(),
                                .ld_out = out.ld(),
                                .scratch = scratch.data()};
  pool.run([&](int tid) { kernels.paged_attention(args, tid, pool.size()); });
  return out.to_js_array(env);
}

}  // namespace

void register_testing_attention(Napi::Env env, Napi::Object testing) {
  add_method(env, testing, "ropeTable", rope_table);
  add_method(env, testing, "ropeAndStore", rope_and_store);
  add_method(env, testing, "pagedAttention", paged_attention);
}

}  // namespace nds::addon
