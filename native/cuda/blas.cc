// Matrix products by cuBLASLt, through our own declarations of the few functions that are used (cublasLt.h of 12 and
// 13).
#include "cuda/blas.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

namespace nds::cuda {
namespace {

constexpr int kCompute32F = 68, kReal32F = 0, kReal16BF = 14, kTranspose = 1;
constexpr int kDescTransA = 3, kPreferenceMaxWorkspace = 1;
constexpr int kMaxProposals = 8, kTimedRuns = 3;
// Beyond this the first proposal is taken untimed: prompts have too many lengths to time each.
constexpr int kMaxTimedRows = 512;

void check_blas(int status, const char* what) {
  if (status != 0)
    throw Error("ERR_CUDA", std::string("Expected ") + what + " of cuBLASLt to succeed but received status " +
                                std::to_string(status));
}

}  // namespace

struct Blas::Functions {
  struct Algorithm {
    uint64_t data[8];
  };
  struct Proposal {
    Algorithm algorithm;
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
  };

  int (*create)(void**);
  int (*destroy)(void*);
  int (*desc_create)(void**, int compute, int scale);
  int (*desc_destroy)(void*);
  int (*desc_set)(void*, int attribute, const void*, size_t);
  int (*layout_create)(void**, int type, uint64_t rows, uint64_t cols, int64_t ld);
  int (*layout_destroy)(void*);
  int (*preference_create)(void**);
  int (*preference_destroy)(void*);
  int (*preference_set)(void*, int attribute, const void*, size_t);
  int (*heuristic)(void* handle, void* desc, void* a, void* b, void* c, void* d, void* preference, int wanted,
                   Proposal*, int* found);
  int (*matmul)(void* handle, void* desc, const void* alpha, const void* a, void* a_layout, const void* b,
                void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                const Algorithm*, void* workspace, size_t workspace_bytes, cudaStream_t stream);
};

struct Blas::Product {
  const Functions& f;
  void *desc = nullptr, *a = nullptr, *b = nullptr, *d = nullptr;
  Functions::Algorithm algorithm{};
  bool is_chosen = false;

  Product(const Functions& functions, const LinearArgs& args) : f(functions) {
    // Row-major y [m, n] = x W^T is column-major y^T [n, m] = W x^T.
    check_blas(f.desc_create(&desc, kCompute32F, kReal32F), "a product");
    check_blas(f.desc_set(desc, kDescTransA, &kTranspose, sizeof(kTranspose)), "a product");
    check_blas(f.layout_create(&a, kReal16BF, static_cast<uint64_t>(args.w.k), static_cast<uint64_t>(args.w.num_rows),
                               args.w.ld),
               "a layout");
    check_blas(f.layout_create(&b, kReal16BF, static_cast<uint64_t>(args.w.k), static_cast<uint64_t>(args.m), args.ldx),
               "a layout");
    check_blas(
        f.layout_create(&d, kReal32F, static_cast<uint64_t>(args.w.num_rows), static_cast<uint64_t>(args.m), args.ldy),
        "a layout");
  }
  ~Product() {
    for (void* layout : {a, b, d}) {
      if (layout != nullptr) f.layout_destroy(layout);
    }
    if (desc != nullptr) f.desc_destroy(desc);
  }
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;
};

std::unique_ptr<Blas> Blas::open(cudaStream_t stream) {
#if defined(NDS_EMULATED)
  // The real library cannot use the emulated device: only a stand-in that the variable names is opened.
  if (std::getenv("NDS_CUBLAS_PATH") == nullptr) return nullptr;
#endif
  Library library = open_cublaslt();
  if (library.handle == nullptr) return nullptr;
  auto functions = std::make_unique<Functions>();
  bool has_all = true;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library.handle, name));
    has_all = has_all && function != nullptr;
  };
  find(functions->create, "cublasLtCreate");
  find(functions->destroy, "cublasLtDestroy");
  find(functions->desc_create, "cublasLtMatmulDescCreate");
  find(functions->desc_destroy, "cublasLtMatmulDescDestroy");
  find(functions->desc_set, "cublasLtMatmulDescSetAttribute");
  find(functions->layout_create, "cublasLtMatrixLayoutCreate");
  find(functions->layout_destroy, "cublasLtMatrixLayoutDestroy");
  find(functions->preference_create, "cublasLtMatmulPreferenceCreate");
  find(functions->preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(functions->preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(functions->heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(functions->matmul, "cublasLtMatmul");
  if (!has_all) return nullptr;
  std::unique_ptr<Blas> blas(new Blas(std::move(library), std::move(functions), stream));
  check_blas(blas->functions_->create(&blas->handle_), "a handle");
  return blas;
}

Blas::Blas(Library library, std::unique_ptr<Functions> functions, cudaStream_t stream)
    : library_(std::move(library)), functions_(std::move(functions)), stream_(stream) {
  workspace_ = DeviceMemory(kWorkspaceBytes, "the workspace of cuBLASLt");
}

Blas::~Blas() {
  products_.clear();
  if (handle_ != nullptr) functions_->destroy(handle_);
}

bool Blas::serves(const LinearArgs& args) {
  return args.w.on_tensor_cores && args.w.num_roots == 1 && args.bias == nullptr;
}

Blas::Product& Blas::product(const LinearArgs& args) {
  const Key key{args.m, args.w.num_rows, args.w.k, args.ldx, args.ldy, args.result == LinearResult::add};
  std::unique_ptr<Product>& found = products_[key];
  if (found == nullptr) found = std::make_unique<Product>(*functions_, args);
  return *found;
}

void Blas::linear(const LinearArgs& args) {
  Product& p = product(args);
  if (!p.is_chosen) choose_algorithm(p, args);
  run(p, &p.algorithm, args, args.result == LinearResult::add ? 1.0f : 0.0f);
}

void Blas::run(Product& p, const void* algorithm, const LinearArgs& args, float beta) {
  const float alpha = 1;
  check_blas(functions_->matmul(handle_, p.desc, &alpha, args.w.data, p.a, args.x, p.b, &beta, args.y, p.d, args.y, p.d,
                                static_cast<const Functions::Algorithm*>(algorithm), workspace_.as<>(), kWorkspaceBytes,
                                stream_),
             "a product");
}

// Times each proposal of the library over the operands of the step and keeps the fastest. LinearResult::add takes the
// first proposal: each repetition would add again.
void Blas::choose_algorithm(Product& p, const LinearArgs& args) {
  void* preference = nullptr;
  check_blas(functions_->preference_create(&preference), "a preference");
  const size_t workspace = kWorkspaceBytes;
  functions_->preference_set(preference, kPreferenceMaxWorkspace, &workspace, sizeof(workspace));
  Functions::Proposal proposals[kMaxProposals];
  int num_found = 0;
  const int status =
      functions_->heuristic(handle_, p.desc, p.a, p.b, p.d, p.d, preference, kMaxProposals, proposals, &num_found);
  functions_->preference_destroy(preference);
  check_blas(num_found > 0 ? status : 15, "an algorithm");
  p.algorithm = proposals[0].algorithm;
  p.is_chosen = true;
  if (args.result == LinearResult::add || args.m > kMaxTimedRows) return;
  cudaEvent_t begin, end;
  check(cudaEventCreateWithFlags(&begin, 0), "making an event");
  check(cudaEventCreateWithFlags(&end, 0), "making an event");
  float best = 1e30f;
  for (int i = 0; i < num_found; i++) {
    run(p, &proposals[i].algorithm, args, 0);
    check(cudaEventRecord(begin, stream_), "timing a product");
    for (int j = 0; j < kTimedRuns; j++) run(p, &proposals[i].algorithm, args, 0);
    check(cudaEventRecord(end, stream_), "timing a product");
    check(cudaEventSynchronize(end), "timing a product");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end), "timing a product");
    if (milliseconds < best) {
      best = milliseconds;
      p.algorithm = proposals[i].algorithm;
    }
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
}

}  // namespace nds::cuda
