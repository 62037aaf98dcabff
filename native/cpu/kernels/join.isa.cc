// Adds partial sums in tree order.
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

// The joined sums of n (1 … 16) elements from i on.
inline F32x16 join_lanes(const JoinArgs& args, int64_t i, int n) {
  F32x16 stack[kMaxDepth];
  int depth = 0;
  for (int input = 0; input < args.num_inputs; input++) {
    F32x16 sum = load_n(args.inputs[input] + i, n);
    for (int merges = args.merges[input]; merges > 0; merges--) sum = stack[--depth] + sum;
    stack[depth++] = sum;
  }
  return stack[0];
}

// Joins elements [begin, end) of one row; bias starts at that of element `begin`, or is null.
void join_row(const JoinArgs& args, int64_t begin, int64_t end, const float* bias) {
  for (int64_t i = begin; i < end; i += 16) {
    const int n = end - i < 16 ? static_cast<int>(end - i) : 16;
    F32x16 sum = join_lanes(args, i, n);
    if (bias != nullptr) sum = sum + load_n(bias + (i - begin), n);
    store_n(args.out + i, sum, n);
  }
}

}  // namespace

void join(const JoinArgs& args) {
  if (args.bias == nullptr) return join_row(args, args.begin, args.end, nullptr);
  for (int64_t i = args.begin; i < args.end;) {
    const int64_t column = i % args.width, row_end = i - column + args.width;
    const int64_t end = row_end < args.end ? row_end : args.end;
    join_row(args, i, end, args.bias + column);
    i = end;
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
