// y = x W^T: the choice of a kernel.
#include <string>

#include "core/error.h"
#include "core/program/packed_linear.h"
#include "cuda/kernels/linear_paths.h"

namespace nds::cuda {

void linear(const LinearArgs& args, LaunchPlace place) {
  if (args.m == 0 || args.w.num_rows == 0 || args.w.num_roots == 0) return;
  if (!args.w.on_tensor_cores) return linear_plain(args, place);
  if (args.w.num_chunks > kMaxChunks) {
    throw Error("ERR_INTERNAL", "Expected at most " + std::to_string(kMaxChunks) + " chunks of a matrix but received " +
                                    std::to_string(args.w.num_chunks));
  }
  if (linear_few_serves(args)) return linear_few(args, place);
  linear_tiled(args, place);
}

}  // namespace nds::cuda
