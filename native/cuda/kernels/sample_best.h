// The best of candidates: the largest value, the lowest id on a tie. NaN and -inf are never candidates.
#pragma once
#include "cuda/kernels/block_sum.h"
#include "cuda/kernels/sample_noise.h"

namespace nds::cuda {

__device__ inline Candidate no_candidate() { return {-infinity(), -1}; }

__device__ inline void keep_better(Candidate& best, const Candidate& other) {
  if (other.id < 0) return;
  if (best.id < 0 || other.value > best.value || (other.value == best.value && other.id < best.id)) best = other;
}

// For a thread that visits its ids in ascending order.
__device__ inline void offer(Candidate& best, float value, int32_t id) {
  if (value > best.value) best = {value, id};
}

__device__ inline Candidate warp_best(Candidate best) {
  for (int offset = 16; offset > 0; offset /= 2) {
    const Candidate other{__shfl_xor_sync(kAllLanes, best.value, offset), __shfl_xor_sync(kAllLanes, best.id, offset)};
    keep_better(best, other);
  }
  return best;
}

// The same in all threads of a block of kThreads. Ends with a barrier.
template <int kThreads>
__device__ Candidate block_best(Candidate best) {
  SIMT_SHARED_ARRAY(Candidate, of_warps, kThreads / 32);
  best = warp_best(best);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = best;
  __syncthreads();
  best = of_warps[0];
  for (int w = 1; w < kThreads / 32; w++) keep_better(best, of_warps[w]);
  __syncthreads();
  return best;
}

// The largest logit of a whole row, by all threads of the block.
template <int kThreads>
__device__ Candidate block_arg_max(const float* logits, int n) {
  Candidate best = no_candidate();
  for (int id = threadIdx.x; id < n; id += kThreads) offer(best, logits[id], id);
  return block_best<kThreads>(best);
}

}  // namespace nds::cuda
