// Matrix products of many rows by cuBLASLt, which is optional.
#pragma once
#include <map>
#include <memory>
#include <tuple>

#include "cuda/kernels.h"
#include "cuda/libraries.h"
#include "cuda/memory.h"

namespace nds::cuda {

class Blas {
 public:
  // Null where the library is missing or cannot be used.
  static std::unique_ptr<Blas> open(cudaStream_t stream);
  ~Blas();

  // Whether cuBLASLt may compute these arguments: bf16, one root, no bias. The order of sums is the library's own.
  static bool serves(const LinearArgs& args);
  // Runs the product. The first call of a shape times the library's proposals, so it must not be captured.
  void linear(const LinearArgs& args);

 private:
  struct Functions;
  struct Product;
  using Key = std::tuple<int, int, int, int64_t, int64_t, bool>;

  Blas(Library library, std::unique_ptr<Functions> functions, cudaStream_t stream);
  Product& product(const LinearArgs& args);
  void choose_algorithm(Product& product, const LinearArgs& args);
  void run(Product& product, const void* algorithm, const LinearArgs& args, float beta);

  static constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;
  Library library_;
  std::unique_ptr<Functions> functions_;
  cudaStream_t stream_;
  void* handle_ = nullptr;
  DeviceMemory workspace_;
  std::map<Key, std::unique_ptr<Product>> products_;
};

}  // namespace nds::cuda
