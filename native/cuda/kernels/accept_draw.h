// Gumbel draw by integer weights: the arg-max over ids of ln(weight) + noise takes an id with probability in proportion
// to its weight.
#pragma once
#include "cuda/kernels/accept_wide.h"

namespace nds::cuda {

// weight_of(id) for ids [0, n), each at most `most`; weight 0 excludes an id. -1 where all are excluded. Equal in all
// threads of a block of kThreads.
template <int kThreads, typename WeightOf>
__device__ int32_t block_draw(int n, WideInt most, const NoiseAddress& address, WeightOf weight_of) {
  // Scales weights to 2^-128 … 1, where single precision rounds none to 0.
  const uint64_t bits_of_unit = static_cast<uint64_t>(1023 - num_bits(most | 1)) << 52;
  double unit;
  memcpy(&unit, &bits_of_unit, 8);
  Candidate best = no_candidate();
  for (int id = threadIdx.x; id < n; id += kThreads) {
    const WideInt weight = weight_of(id);
    if (weight == 0) continue;
    const float share = static_cast<float>(__dmul_rn(to_double(weight), unit));
    offer(best, __fadd_rn(exact_log(share), gumbel_of(address, id)), id);
  }
  return block_best<kThreads>(best).id;
}

}  // namespace nds::cuda
