// Adds partial sums in tree order.
#include "cpu/isa_ops.h"
#include "cpu/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

F32x16 load_bias(const JoinArgs& args, int64_t i, int n) {
  float values[16];
  for (int lane = 0; lane < n; lane++) values[lane] = args.bias[(i + lane) % args.width];
  return load_n(values, n);
}

}  // namespace

void join(const JoinArgs& args) {
  F32x16 stack[kMaxDepth];
  for (int64_t i = args.begin; i < args.end; i += 16) {
    const int n = args.end - i < 16 ? static_cast<int>(args.end - i) : 16;
    int depth = 0;
    for (int input = 0; input < args.num_inputs; input++) {
      F32x16 sum = load_n(args.inputs[input] + i, n);
      for (int merges = args.merges[input]; merges > 0; merges--) sum = stack[--depth] + sum;
      stack[depth++] = sum;
    }
    const F32x16 total = stack[0];
    store_n(args.out + i, args.bias == nullptr ? total : total + load_bias(args, i, n), n);
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
