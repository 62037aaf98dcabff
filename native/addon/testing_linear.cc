// `testing.linear` and `testing.reductionTree`: packing, products and the order of summation on plain arrays.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "addon/js.h"
#include "addon/testing.h"
#include "core/memory.h"
#include "core/reduction_tree.h"
#include "cpu/kernels.h"
#include "cpu/thread_pool.h"

namespace nds::addon {
namespace {

const cpu::Kernels& kernels_named(const std::string& name) {
  const cpu::IsaList& isas = cpu::available_isas();
  for (int i = 0; i < isas.count; i++) {
    if (name == isas.tables[i]->name) return *isas.tables[i];
  }
  throw Error("ERR_INTERNAL", "Expected an available instruction set but received " + name);
}

DType dtype_named(const std::string& name) {
  if (name == "float32") return DType::f32;
  if (name == "bfloat16") return DType::bf16;
  if (name == "float16") return DType::f16;
  throw Error("ERR_INTERNAL", "Expected a dtype but received " + name);
}

uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// To nearest, ties to even; from the largest fp16 up, infinity.
uint16_t to_f16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::abs(value);
  if (std::isnan(value)) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 65520.0f) return static_cast<uint16_t>(sign | 0x7c00);
  // Denormals are multiples of 2^-24, others have 11 significant bits; a carry moves into the exponent by itself.
  const int exponent = magnitude < 0x1p-14f ? -14 : std::ilogb(magnitude);
  const int mantissa = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return static_cast<uint16_t>(sign | (((exponent + 14) << 10) + mantissa));
}

Napi::Float32Array get_floats(const Napi::Object& object, const char* key, int64_t length) {
  const Napi::Value value = member(object, key);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array ||
      static_cast<int64_t>(value.As<Napi::TypedArray>().ElementLength()) != length) {
    throw Error("ERR_INTERNAL",
                std::string("Expected property ") + key + " to be a Float32Array of " + std::to_string(length));
  }
  return value.As<Napi::Float32Array>();
}

// values [rows, width] as dtype in rows of ld elements, with NaNs after the width: nobody may read those.
std::vector<uint8_t> to_matrix(const float* values, int64_t rows, int64_t width, int64_t ld, DType dtype) {
  const size_t size = dtype_size(dtype);
  std::vector<uint8_t> bytes(static_cast<size_t>(rows * ld) * size, 0xff);
  for (int64_t i = 0; i < rows * width; i++) {
    uint8_t* to = bytes.data() + static_cast<size_t>(i / width * ld + i % width) * size;
    if (dtype == DType::f32) {
      std::memcpy(to, values + i, 4);
    } else {
      const uint16_t half = dtype == DType::bf16 ? to_bf16(values[i]) : to_f16(values[i]);
      std::memcpy(to, &half, 2);
    }
  }
  return bytes;
}

struct Problem {
  const cpu::Kernels* kernels;
  int m, k, n, num_threads;
  DType dtype, x_dtype;
  std::vector<int> edges;
  int first_chunk, num_chunks;

  explicit Problem(const Napi::Object& options)
      : kernels(&kernels_named(get_string(options, "isa"))),
        m(get_int(options, "m")),
        k(get_int(options, "k")),
        n(get_int(options, "n")),
        num_threads(get_int(options, "numThreads")),
        dtype(dtype_named(get_string(options, "dtype"))),
        x_dtype(dtype_named(get_string(options, "xDtype"))),
        first_chunk(get_int(options, "firstChunk")),
        num_chunks(get_int(options, "numChunks")) {
    const Napi::Array array = get_array(options, "chunkEdges");
    for (uint32_t i = 0; i < array.Length(); i++) edges.push_back(array.Get(i).As<Napi::Number>().Int32Value());
    if (edges.size() < 2 || edges.front() != 0 || edges.back() != k) {
      throw Error("ERR_INTERNAL", "Expected chunkEdges from 0 to k");
    }
    if (m < 1 || n < 1 || k < 1) throw Error("ERR_INTERNAL", "Expected m, n and k of at least 1");
  }
};

// linear({ isa, m, k, n, dtype, xDtype, x, w, bias, chunkEdges, firstChunk, numChunks, numThreads }): x [m, k], w [n,
// k] and bias [n] or null are Float32Arrays, rounded to their dtype here. Returns { numRoots, roots: Float32Array
// [numRoots, m, n] }.
Napi::Value linear(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  try {
    const Napi::Object options = info[0].As<Napi::Object>();
    const Problem p(options);
    const int num_panels = (p.n + kPanel - 1) / kPanel, padded_n = num_panels * kPanel, ldx = (p.k + 31) / 32 * 32;
    const std::vector<uint8_t> x =
        to_matrix(get_floats(options, "x", int64_t{p.m} * p.k).Data(), p.m, p.k, ldx, p.x_dtype);
    const std::vector<uint8_t> w =
        to_matrix(get_floats(options, "w", int64_t{p.n} * p.k).Data(), p.n, p.k, p.k + 3, p.dtype);
    std::vector<float> bias;
    if (!member(options, "bias").IsNull()) {
      const Napi::Float32Array given = get_floats(options, "bias", p.n);
      bias.assign(given.Data(), given.Data() + p.n);
      bias.resize(padded_n);
    }
    PackedLinear packed = plan_packed_linear(p.dtype, num_panels, p.edges, p.first_chunk, p.num_chunks);
    const HugeMemory memory(static_cast<size_t>(packed.panel_bytes * num_panels), "packed test weights");
    packed.data = memory.data();
    const int64_t root_stride = int64_t{p.m} * padded_n;
    std::vector<float> y(static_cast<size_t>(packed.num_roots * root_stride), std::numeric_limits<float>::quiet_NaN());
    cpu::ThreadPool pool(p.num_threads);
    pool.run([&](int tid) {
      p.kernels->pack_linear({&packed, w.data(), p.k + 3, p.n, 0}, tid, p.num_threads);
      pool.barrier();
      p.kernels->linear({x.data(), ldx, p.x_dtype, p.m, &packed, bias.empty() ? nullptr : bias.data(), y.data(),
                         padded_n, root_stride},
                        tid, p.num_threads);
    });
    Napi::Float32Array roots = Napi::Float32Array::New(env, static_cast<size_t>(int64_t{packed.num_roots} * p.m * p.n));
    for (int64_t row = 0; row < int64_t{packed.num_roots} * p.m; row++) {
      std::memcpy(roots.Data() + row * p.n, y.data() + row * padded_n, static_cast<size_t>(p.n) * 4);
    }
    Napi::Object result = Napi::Object::New(env);
    result.Set("numRoots", packed.num_roots);
    result.Set("roots", roots);
    return result;
  } catch (const Error& error) {
    throw to_js(env, error);
  }
}

Napi::Array to_array(Napi::Env env, const std::vector<uint8_t>& values) {
  Napi::Array array = Napi::Array::New(env, values.size());
  for (size_t i = 0; i < values.size(); i++) array.Set(static_cast<uint32_t>(i), static_cast<double>(values[i]));
  return array;
}

// reductionTree({ numChunks, worldSize }) → { local: [merges of rank r], numRoots: [of rank r], join: [merges of all]
// }.
Napi::Value reduction_tree(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  try {
    const Napi::Object options = info[0].As<Napi::Object>();
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
  } catch (const Error& error) {
    throw to_js(env, error);
  }
}

}  // namespace

void register_testing_linear(Napi::Env env, Napi::Object testing) {
  testing.Set("linear", Napi::Function::New(env, linear));
  testing.Set("reductionTree", Napi::Function::New(env, reduction_tree));
}

}  // namespace nds::addon
