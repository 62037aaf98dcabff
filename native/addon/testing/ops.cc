// Row-wise and element-wise operators on plain arrays: norms, activations, embedding, joins.
#include <cstring>

#include "addon/testing/arrays.h"
#include "addon/testing/testing.h"
#include "cpu/thread_pool.h"

namespace nds::addon {
namespace {

// kernel(args, tid, num_threads) on options.numThreads threads.
template <typename Args>
void run_threads(const Napi::Object& options, void (*kernel)(const Args&, int, int), const Args& args) {
  cpu::ThreadPool pool(get_int(options, "numThreads"));
  pool.run([&](int tid) { kernel(args, tid, pool.size()); });
}

// rmsNorm({ x [rows, width], rows, width, weight [width], eps, outDtype }) → [rows, padded width].
Napi::Value rms_norm(Napi::Env env, const Napi::Object& options) {
  const int rows = get_int(options, "rows"), width = get_int(options, "width");
  const DType dtype = get_dtype(options, "outDtype");
  TestMatrix x(get_floats(options, "x", int64_t{rows} * width), rows, width, padded_width(width), DType::f32);
  TestMatrix out(rows, padded_width(width), dtype);
  const float* weight = get_floats(options, "weight", width).Data();
  const cpu::RmsNormArgs args{.x = x.f32(),
                              .ldx = x.ld(),
                              .weight = weight,
                              .eps = get_float(options, "eps"),
                              .rows = rows,
                              .width = width,
                              .out = out.data(),
                              .ld_out = out.ld(),
                              .out_dtype = dtype};
  run_threads(options, get_kernels(options).rms_norm, args);
  return out.to_js_array(env);
}

// headNorm({ qkv [rows, width], rows, width, offset, numHeads, headDim, weight [headDim], eps }) → [rows, width].
Napi::Value head_norm(Napi::Env env, const Napi::Object& options) {
  const int rows = get_int(options, "rows"), width = get_int(options, "width");
  const int head_dim = get_int(options, "headDim");
  TestMatrix qkv(get_floats(options, "qkv", int64_t{rows} * width), rows, width, width, DType::f32);
  const float* weight = get_floats(options, "weight", head_dim).Data();
  const cpu::HeadNormArgs args{.qkv = qkv.f32(),
                               .ld = width,
                               .rows = rows,
                               .offset = get_int(options, "offset"),
                               .num_heads = get_int(options, "numHeads"),
                               .head_dim = head_dim,
                               .weight = weight,
                               .eps = get_float(options, "eps")};
  run_threads(options, get_kernels(options).head_norm, args);
  return qkv.to_js_array(env);
}

// siluMul({ gateUp [rows, 2 * width], rows, width, outDtype }) → [rows, padded width]; up follows gate.
Napi::Value silu_mul(Napi::Env env, const Napi::Object& options) {
  const int rows = get_int(options, "rows"), width = get_int(options, "width");
  const DType dtype = get_dtype(options, "outDtype");
  TestMatrix in(get_floats(options, "gateUp", int64_t{2} * rows * width), rows, 2 * width, 2 * width, DType::f32);
  TestMatrix out(rows, padded_width(width), dtype);
  const cpu::SiluMulArgs args{.gate = in.f32(),
                              .up = in.f32() + width,
                              .ld = in.ld(),
                              .rows = rows,
                              .width = width,
                              .out = out.data(),
                              .ld_out = out.ld(),
                              .out_dtype = dtype};
  run_threads(options, get_kernels(options).silu_mul, args);
  return out.to_js_array(env);
}

// add({ a, b [rows, width], rows, width, inPlace }) → [rows, padded width]; columns past the width are not written.
Napi::Value add(Napi::Env env, const Napi::Object& options) {
  const int rows = get_int(options, "rows"), width = get_int(options, "width");
  const int64_t ld = padded_width(width);
  TestMatrix a(get_floats(options, "a", int64_t{rows} * width), rows, width, ld, DType::f32);
  TestMatrix b(get_floats(options, "b", int64_t{rows} * width), rows, width, ld + 32, DType::f32);
  TestMatrix other(rows, ld, DType::f32);
  TestMatrix& out = get_bool(options, "inPlace") ? a : other;
  run_threads(options, get_kernels(options).add, {a.f32(), b.f32(), out.f32(), ld, ld + 32, ld, rows, width});
  return out.to_js_array(env);
}

// embedding({ tokenIds, table [numRows, width], tableDtype, firstRow, numRows, width }) → [tokens, padded width], NaN
// where another rank owns the row.
Napi::Value embedding(Napi::Env env, const Napi::Object& options) {
  const int num_rows = get_int(options, "numRows"), width = get_int(options, "width");
  const std::vector<int32_t> ids = get_ints(options, "tokenIds");
  const DType dtype = get_dtype(options, "tableDtype");
  // An unaligned stride: rows of a checkpoint need not be aligned.
  TestMatrix table(get_floats(options, "table", int64_t{num_rows} * width), num_rows, width, width + 1, dtype);
  TestMatrix out(static_cast<int64_t>(ids.size()), padded_width(width), DType::f32);
  const cpu::EmbeddingArgs args{.token_ids = ids.data(),
                                .rows = static_cast<int>(ids.size()),
                                .table = static_cast<const uint8_t*>(table.data()),
                                .table_dtype = dtype,
                                .table_ld = table.ld(),
                                .first_row = get_int(options, "firstRow"),
                                .num_rows = num_rows,
                                .width = width,
                                .out = out.f32(),
                                .ld_out = out.ld()};
  run_threads(options, get_kernels(options).embedding, args);
  return out.to_js_array(env);
}

// join({ inputs: Float32Array [numInputs, count], count, merges: Int32Array, bias: Float32Array or null, width, begin,
// end }) → [count], NaN outside [begin, end).
Napi::Value join(Napi::Env env, const Napi::Object& options) {
  const int64_t count = get_int64(options, "count"), width = get_int64(options, "width");
  const std::vector<int32_t> wide = get_ints(options, "merges");
  const std::vector<uint8_t> merges(wide.begin(), wide.end());
  const Napi::Float32Array values = get_floats(options, "inputs", count * static_cast<int64_t>(merges.size()));
  std::vector<const float*> inputs;
  for (size_t i = 0; i < merges.size(); i++) inputs.push_back(values.Data() + static_cast<int64_t>(i) * count);
  const float* bias = member(options, "bias").IsNull() ? nullptr : get_floats(options, "bias", width).Data();
  TestMatrix out(1, count, DType::f32);
  get_kernels(options).join({.inputs = inputs.data(),
                             .merges = merges.data(),
                             .num_inputs = static_cast<int>(merges.size()),
                             .bias = bias,
                             .width = width,
                             .begin = get_int64(options, "begin"),
                             .end = get_int64(options, "end"),
                             .out = out.f32()});
  return out.to_js_array(env);
}

// map({ function: 'exp' | 'log' | 'gumbel', x }) → y of the same length.
Napi::Value map(Napi::Env env, const Napi::Object& options) {
  const std::string name = get_string(options, "function");
  const cpu::LaneFunction function = name == "exp"   ? cpu::LaneFunction::exp
                                     : name == "log" ? cpu::LaneFunction::log
                                                     : cpu::LaneFunction::gumbel;
  const int64_t count = static_cast<int64_t>(member(options, "x").As<Napi::TypedArray>().ElementLength());
  Napi::Float32Array y = Napi::Float32Array::New(env, static_cast<size_t>(count));
  get_kernels(options).test_map(function, get_floats(options, "x", count).Data(), count, y.Data());
  return y;
}
}  // namespace

void register_testing_ops(Napi::Env env, Napi::Object testing) {
  add_method(env, testing, "rmsNorm", rms_norm);
  add_method(env, testing, "headNorm", head_norm);
  add_method(env, testing, "siluMul", silu_mul);
  add_method(env, testing, "add", add);
  add_method(env, testing, "embedding", embedding);
  add_method(env, testing, "join", join);
  add_method(env, testing, "map", map);
  register_testing_attention(env, testing);
  register_testing_sampling(env, testing);
  register_testing_accept(env, testing);
}

}  // namespace nds::addon
