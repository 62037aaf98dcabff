// A stand-in for cuBLASLt on the emulated device: the few functions that the backend uses, with a plain product on the
// stream. It checks its arguments, and proposes two equivalent algorithms.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kSuccess = 0, kInvalidValue = 7, kNotSupported = 15;

struct Layout {
  int type;
  uint64_t rows, cols;
  int64_t ld;
};
struct Desc {
  int compute, scale, transpose_a;
};
struct Product {
  Layout a, b, d;
  const uint16_t *a_data, *b_data;
  float* d_data;
  float alpha, beta;
};

float widen(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

// Column-major: d [m, n] = alpha a^T b + beta d, with a [k, m] and b [k, n].
int run(void* context) {
  const Product& p = *static_cast<const Product*>(context);
  for (uint64_t n = 0; n < p.b.cols; n++) {
    for (uint64_t m = 0; m < p.a.cols; m++) {
      float sum = 0;
      for (uint64_t k = 0; k < p.a.rows; k++) sum += widen(p.a_data[m * p.a.ld + k]) * widen(p.b_data[n * p.b.ld + k]);
      float& out = p.d_data[n * p.d.ld + m];
      out = p.alpha * sum + (p.beta == 0 ? 0 : p.beta * out);
    }
  }
  return 1;
}

using Enqueue = int (*)(void* stream, int (*work)(void*), void* context);

}  // namespace

EXPORT size_t cublasLtGetVersion() { return 999999; }
EXPORT int cublasLtCreate(void** handle) {
  void* const backend = dlopen(std::getenv("NDS_CUDA_LIBRARY"), RTLD_NOW | RTLD_NOLOAD);
  *handle = backend == nullptr ? nullptr : dlsym(backend, "nds_simt_enqueue");
  return *handle == nullptr ? kNotSupported : kSuccess;
}
EXPORT int cublasLtDestroy(void*) { return kSuccess; }
EXPORT int cublasLtMatmulDescCreate(void** desc, int compute, int scale) {
  *desc = new Desc{compute, scale, 0};
  return compute == 68 && scale == 0 ? kSuccess : kNotSupported;
}
EXPORT int cublasLtMatmulDescDestroy(void* desc) {
  delete static_cast<Desc*>(desc);
  return kSuccess;
}
EXPORT int cublasLtMatmulDescSetAttribute(void* desc, int attribute, const void* value, size_t size) {
  if (attribute != 3 || size != 4) return kNotSupported;
  std::memcpy(&static_cast<Desc*>(desc)->transpose_a, value, 4);
  return kSuccess;
}
EXPORT int cublasLtMatrixLayoutCreate(void** layout, int type, uint64_t rows, uint64_t cols, int64_t ld) {
  *layout = new Layout{type, rows, cols, ld};
  return rows > 0 && cols > 0 && ld >= static_cast<int64_t>(rows) ? kSuccess : kInvalidValue;
}
EXPORT int cublasLtMatrixLayoutDestroy(void* layout) {
  delete static_cast<Layout*>(layout);
  return kSuccess;
}
EXPORT int cublasLtMatmulPreferenceCreate(void** preference) {
  *preference = new size_t(0);
  return kSuccess;
}
EXPORT int cublasLtMatmulPreferenceDestroy(void* preference) {
  delete static_cast<size_t*>(preference);
  return kSuccess;
}
EXPORT int cublasLtMatmulPreferenceSetAttribute(void*, int attribute, const void*, size_t size) {
  return attribute == 1 && size == sizeof(size_t) ? kSuccess : kNotSupported;
}
EXPORT int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int wanted, void* results,
                                          int* found) {
  struct Result {
    uint64_t algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
  };
  *found = wanted < 2 ? wanted : 2;
  for (int i = 0; i < *found; i++) static_cast<Result*>(results)[i] = {{static_cast<uint64_t>(i) + 1}, 0, 0, 1, {}};
  return kSuccess;
}
EXPORT int cublasLtMatmul(void* handle, void* desc, const float* alpha, const void* a, void* a_layout, const void* b,
                          void* b_layout, const float* beta, const void* c, void* c_layout, void* d, void* d_layout,
                          const uint64_t* algorithm, void*, size_t, void* stream) {
  const Layout &la = *static_cast<Layout*>(a_layout), &lb = *static_cast<Layout*>(b_layout);
  const Layout& ld = *static_cast<Layout*>(d_layout);
  const bool fits = la.rows == lb.rows && la.cols == ld.rows && lb.cols == ld.cols;
  const bool is_known = la.type == 14 && lb.type == 14 && ld.type == 0 && c == d && c_layout == d_layout;
  const bool has_algorithm = algorithm != nullptr && (algorithm[0] == 1 || algorithm[0] == 2);
  if (!fits || !is_known || !has_algorithm || static_cast<Desc*>(desc)->transpose_a != 1) return kInvalidValue;
  // The log shows a test which products ran.
  if (const char* const log = std::getenv("NDS_STAND_IN_LOG")) {
    if (FILE* const file = std::fopen(log, "a")) {
      std::fprintf(file, "%d x %d x %d\n", static_cast<int>(ld.cols), static_cast<int>(ld.rows),
                   static_cast<int>(la.rows));
      std::fclose(file);
    }
  }
  // Never freed: a captured graph may run it again.
  auto* product = new Product{
      la,     lb,   ld, static_cast<const uint16_t*>(a), static_cast<const uint16_t*>(b), static_cast<float*>(d),
      *alpha, *beta};
  return reinterpret_cast<Enqueue>(handle)(stream, run, product) == 0 ? kSuccess : kInvalidValue;
}
