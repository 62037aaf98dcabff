// The stack program that joins partial sums in the order of reduction_tree.h.
#pragma once
#include "cuda/device.h"
#include "cuda/kernels/unroll.h"

namespace nds::cuda {

constexpr int kMaxJoinDepth = 16;

__device__ inline float add_rn(float a, float b) { return __fadd_rn(a, b); }
__device__ inline float4 add_rn(float4 a, float4 b) {
  return {__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w)};
}

// load(0) … load(num_inputs - 1) joined by the stack program merges(0) … merges(num_inputs - 1), as in LinearWeight.
// Eight loads are in flight at once: those from a peer's memory take a microsecond each.
template <typename T, typename Load, typename Merges>
__device__ T join_inputs(int num_inputs, const Load& load, const Merges& merges) {
  constexpr int kLoads = 8;
  T stack[kMaxJoinDepth];
  int depth = 0;
  for (int first = 0; first < num_inputs; first += kLoads) {
    T values[kLoads];
    NDS_UNROLL()
    for (int i = 0; i < kLoads; i++) {
      if (first + i < num_inputs) values[i] = load(first + i);
    }
    NDS_UNROLL()
    for (int i = 0; i < kLoads; i++) {
      if (first + i >= num_inputs) continue;
      T sum = values[i];
      for (int merge = 0; merge < merges(first + i); merge++) sum = add_rn(stack[--depth], sum);
      stack[depth++] = sum;
    }
  }
  return stack[0];
}

}  // namespace nds::cuda
