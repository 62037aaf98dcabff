// `testing.linear`, `testing.linearSiluMul` and `testing.reductionTree`: packing, products and the order of summation
// on plain arrays.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "addon/program_reader.h"
#include "addon/testing/arrays.h"
#include "addon/testing/testing.h"
#include "core/memory.h"
#include "core/program/reduction_tree.h"
#include "cpu/kernels.h"
#include "cpu/pack_codes.h"
#include "cpu/pack_fp8.h"
#include "cpu/thread_pool.h"

namespace nds::addon {
namespace {

struct Problem {
  const cpu::Kernels* kernels;
  int m, k, n, num_threads;
  WeightFormat format;
  DType x_dtype;
  std::vector<int> edges;
  int first_chunk, num_chunks;
  KeptCodes codes;
  bool keeps_codes, is_stored;  // integers as they are; read from a slice

  explicit Problem(const Napi::Object& options)
      : kernels(&get_kernels(options)),
        m(get_int(options, "m")),
        k(get_int(options, "k")),
        n(get_int(options, "n")),
        num_threads(get_int(options, "numThreads")),
        format(read_format(options)),
        x_dtype(get_dtype(options, "xDtype")),
        first_chunk(get_int(options, "firstChunk")),
        num_chunks(get_int(options, "numChunks")),
        keeps_codes(options.Has("codes")),
        is_stored(keeps_codes || format == WeightFormat::fp8) {
    if (keeps_codes) codes = read_codes(get_object(options, "codes"));
    const Napi::Array array = get_array(options, "chunkEdges");
    for (uint32_t i = 0; i < array.Length(); i++) edges.push_back(array.Get(i).As<Napi::Number>().Int32Value());
    const int num_positions = codes.columns.empty() ? k : static_cast<int>(codes.columns.size());
    if (edges.size() < 2 || edges.front() != 0 || edges.back() != num_positions) {
      throw Error("ERR_INTERNAL", "Expected chunkEdges from 0 to k");
    }
    if (m < 1 || n < 1 || k < 1) throw Error("ERR_INTERNAL", "Expected m, n and k of at least 1");
  }
};

std::vector<MappedFile> read_files(const Napi::Object& options) {
  const Napi::Array paths = get_array(options, "files");
  std::vector<MappedFile> files;
  for (uint32_t i = 0; i < paths.Length(); i++) files.emplace_back(paths.Get(i).As<Napi::String>().Utf8Value());
  return files;
}

// Packs all rows of the slice, which stay as they are stored.
void pack_slice(const std::vector<MappedFile>& files, const TensorSlice& slice, const PackedLinear& packed) {
  std::optional<IntegerReader> integers;
  std::optional<Fp8Reader> fp8;
  if (slice.integers) integers.emplace(files, slice);
  if (slice.fp8) fp8.emplace(files, slice);
  std::vector<int16_t> codes(static_cast<size_t>(kPanel * slice.num_slice_cols()));
  for (int panel = 0; panel < packed.num_panels; panel++) {
    const int num_rows = static_cast<int>(std::min<int64_t>(kPanel, slice.num_rows() - panel * kPanel));
    const cpu::CodePanel rows{packed, slice, panel * kPanel, num_rows, panel};
    const cpu::CodeProblem problem = fp8 ? cpu::pack_fp8(*fp8, rows) : cpu::pack_codes(*integers, rows, codes.data());
    if (problem != cpu::CodeProblem::none) throw Error("ERR_INTERNAL", "Expected weights that fit their format");
  }
}

// The layout of a problem's weights, which refers to it.
PackedLinear plan(const Napi::Object& options, const Problem& p) {
  Fp8Columns fp8;
  if (p.format == WeightFormat::fp8) {
    const TensorSlice slice = read_slice(get_object(options, "slice"), get_array(options, "files").Length());
    fp8 = {static_cast<int>(slice.fp8->cols_per_scale), static_cast<int>(slice.col_begin)};
  }
  PackedLinear packed = plan_packed_linear(p.format, (p.n + kPanel - 1) / kPanel, p.edges, p.first_chunk, p.num_chunks,
                                           p.keeps_codes ? &p.codes : nullptr, fp8);
  if (!p.codes.columns.empty()) packed.columns = p.codes.columns.data();
  return packed;
}

// Packs the weights of a problem and calls run(linear arguments without an output, tid) on its threads.
// x [m, k] and w [n, k] are Float32Arrays, rounded here to xDtype and, unless it quantizes, format; bias is a
// Float32Array [n] or null. With codes or fp8, w is not read: { codes, files, slice } say what is kept, all rows of the
// slice, and chunkEdges are as in ProgramSpec.
template <typename Run>
void run_product(const Napi::Object& options, const Problem& p, PackedLinear& packed, Run run) {
  const int padded_n = packed.num_panels * kPanel;
  TestMatrix x(get_floats(options, "x", int64_t{p.m} * p.k), p.m, p.k, padded_width(p.k), p.x_dtype);
  std::optional<TestMatrix> w;
  if (!p.is_stored) w.emplace(get_floats(options, "w", int64_t{p.n} * p.k), p.n, p.k, p.k + 3, row_dtype(p.format));
  std::vector<float> bias;
  if (!member(options, "bias").IsNull()) {
    const Napi::Float32Array given = get_floats(options, "bias", p.n);
    bias.assign(given.Data(), given.Data() + p.n);
    bias.resize(padded_n);
  }
  std::vector<MappedFile> files;
  TensorSlice slice;
  if (p.is_stored) {
    files = read_files(options);
    slice = read_slice(get_object(options, "slice"), files.size());
  }
  const HugeMemory memory(static_cast<size_t>(packed.panel_bytes * packed.num_panels), "packed test weights");
  packed.data = memory.data();
  if (p.is_stored) pack_slice(files, slice, packed);
  const int64_t row_bytes = p.kernels->quantized_row_bytes(packed);
  const HugeMemory quantized(static_cast<size_t>(p.m * row_bytes), "quantized test activations");
  const HugeMemory scratch(static_cast<size_t>(p.num_threads * p.kernels->linear_scratch_bytes(packed)),
                           "decoded test weights");
  std::atomic<bool> fits{true};
  cpu::ThreadPool pool(p.num_threads);
  pool.run([&](int tid) {
    const bool fit = !w || p.kernels->pack_linear({.w = &packed,
                                                   .src = static_cast<const uint8_t*>(w->data()),
                                                   .src_ld = w->ld(),
                                                   .num_rows = p.n,
                                                   .first_panel = 0},
                                                  tid, p.num_threads);
    if (!fit) fits = false;
    if (is_quantized(p.format)) {
      p.kernels->quantize_rows(
          {.x = x.data(), .ldx = x.ld(), .x_dtype = p.x_dtype, .rows = p.m, .w = &packed, .out = quantized.data()}, tid,
          p.num_threads);
    }
    pool.barrier();
    run(cpu::LinearArgs{.x = is_quantized(p.format) ? quantized.data() : x.data(),
                        .ldx = is_quantized(p.format) ? row_bytes : x.ld(),
                        .x_dtype = p.x_dtype,
                        .m = p.m,
                        .w = &packed,
                        .bias = bias.empty() ? nullptr : bias.data(),
                        .y = nullptr,
                        .ldy = 0,
                        .root_stride = 0,
                        .scratch = scratch.data()},
        tid);
  });
  if (!fits) throw Error("ERR_INTERNAL", "Expected weights that fit their format");
}

// linear({ isa, m, k, n, format, xDtype, x, w, bias, chunkEdges, firstChunk, numChunks, numThreads })
// → { numRoots, roots: Float32Array [numRoots, m, n] }.
Napi::Value linear(Napi::Env env, const Napi::Object& options) {
  const Problem p(options);
  PackedLinear packed = plan(options, p);
  const int padded_n = packed.num_panels * kPanel;
  const int64_t root_stride = int64_t{p.m} * padded_n;
  std::vector<float> y(static_cast<size_t>(packed.num_roots * root_stride), std::numeric_limits<float>::quiet_NaN());
  run_product(options, p, packed, [&](cpu::LinearArgs args, int tid) {
    args.y = y.data();
    args.ldy = padded_n;
    args.root_stride = root_stride;
    p.kernels->linear(args, tid, p.num_threads);
  });
  Napi::Float32Array roots = Napi::Float32Array::New(env, static_cast<size_t>(int64_t{packed.num_roots} * p.m * p.n));
  for (int64_t row = 0; row < int64_t{packed.num_roots} * p.m; row++) {
    std::memcpy(roots.Data() + row * p.n, y.data() + row * padded_n, static_cast<size_t>(p.n) * 4);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("numRoots", packed.num_roots);
  result.Set("roots", roots);
  return result;
}

// linearSiluMul({ …as linear, width, upOffset, outDtype }) → [m, padded width].
Napi::Value linear_silu_mul(Napi::Env env, const Napi::Object& options) {
  const Problem p(options);
  PackedLinear packed = plan(options, p);
  const int width = get_int(options, "width"), up_offset = get_int(options, "upOffset");
  const DType dtype = get_dtype(options, "outDtype");
  if (packed.num_roots != 1 || up_offset % kPanel != 0 || width > up_offset || up_offset + width > p.n)
    throw Error("ERR_INTERNAL", "Expected one root, and panels of gate before those of up");
  TestMatrix out(p.m, padded_width(width), dtype);
  run_product(options, p, packed, [&](const cpu::LinearArgs& args, int tid) {
    p.kernels->linear_silu_mul({.linear = args,
                                .up_offset = up_offset,
                                .width = width,
                                .out = out.data(),
                                .ld_out = out.ld(),
                                .out_dtype = dtype},
                               tid, p.num_threads);
  });
  return out.to_js_array(env);
}

Napi::Array to_array(Napi::Env env, const std::vector<uint8_t>& values) {
  Napi::Array array = Napi::Array::New(env, values.size());
  for (size_t i = 0; i < values.size(); i++) array.Set(static_cast<uint32_t>(i), static_cast<double>(values[i]));
  return array;
}

// reductionTree({ numChunks, worldSize })
// → { local: [merges of rank r], numRoots: [of rank r], join: [merges of all] }.
Napi::Value reduction_tree(Napi::Env env, const Napi::Object& options) {
  const int num_chunks = get_int(options, "numChunks"), world_size = get_int(options, "worldSize");
  Napi::Array local = Napi::Array::New(env), roots = Napi::Array::New(env);
  for (int r = 0; r < world_size; r++) {
    const int begin = r * num_chunks / world_size, end = (r + 1) * num_chunks / world_size;
    local.Set(r, to_array(env, local_merges(num_chunks, begin, end)));
    roots.Set(r, rank_num_roots(num_chunks, world_size, r));
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("local", local);
  result.Set("numRoots", roots);
  result.Set("join", to_array(env, join_merges(num_chunks, world_size)));
  return result;
}

}  // namespace

void register_testing_linear(Napi::Env env, Napi::Object testing) {
  add_method(env, testing, "linear", linear);
  add_method(env, testing, "linearSiluMul", linear_silu_mul);
  add_method(env, testing, "reductionTree", reduction_tree);
}

}  // namespace nds::addon
