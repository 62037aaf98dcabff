// The tokens of rows without filters: arg-max of the logits, or of logits / temperature + Gumbel noise. Blocks split a
// row by ranges of ids; then one warp per row joins their candidates.
#include <algorithm>

#include "cuda/check.h"
#include "cuda/kernels/sample_best.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 256;

// Upper bound of gumbel(word) from its leading ones: with w = 1 - u, -log(-log(u)) < -log(w).
__device__ inline float most_noise(uint32_t word) {
  return (word & 0x80000000u) == 0 ? 0.37f : 0.69315f * static_cast<float>(__clz(static_cast<int>(~word)) + 1);
}

// Four ids that share a call of Philox, from 4 * group on; those outside [begin, end) are left out.
struct Quad {
  float x[4];
  __device__ Quad(const float* logits, int first_id, int group, int begin, int end) {
    const int id = 4 * group;
    const float* const from = logits + (id - first_id);
    if (id >= begin && id + 4 <= end && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
      const float4 all = *reinterpret_cast<const float4*>(from);
      x[0] = all.x;
      x[1] = all.y;
      x[2] = all.z;
      x[3] = all.w;
      return;
    }
    for (int i = 0; i < 4; i++) x[i] = id + i >= begin && id + i < end ? from[i] : -infinity();
  }
};

// Skips the ids, most of them, whose noise cannot lift them to `reached`, the best value of the warp so far. An id that
// ties with `reached` is not skipped: it may win by its id. `slack` exceeds the rounding errors of the sums.
__device__ void offer_noisy(Candidate& best, float reached, const Quad& quad, int group, float temperature,
                            const NoiseAddress& address) {
  uint32_t words[4];
  philox(address, static_cast<uint32_t>(group), words);
  for (int i = 0; i < 4; i++) {
    const float x = __fdiv_rn(quad.x[i], temperature);
    if (!(x > -infinity())) continue;
    const float slack = 0.01f + 1e-6f * fabsf(x);
    if (x + most_noise(words[i]) + slack < reached) continue;
    offer(best, __fadd_rn(x, gumbel(words[i])), 4 * group + i);
  }
}

// grid (num_splits, num_rows): block x takes groups of four ids [x, x + 1) * groups / num_splits.
__global__ void __launch_bounds__(kThreads) sample_kernel(SampleArgs args) {
  simt::wait_for_previous();
  const LogitRow row = args.batch.rows[blockIdx.y];
  const bool taken = is_sampled(row) && !is_filtered(args.batch, row);
  Candidate best = no_candidate();
  if (taken && args.num_ids > 0) {
    const DeviceParams& params = args.batch.slots[row.slot].params;
    const float temperature = args.batch.is_greedy ? 0 : params.temperature;
    const NoiseAddress address = address_of(params, NoiseStream::target, row.position, 0);
    const int begin = args.first_id, end = args.first_id + args.num_ids;
    const int first_group = begin / 4, num_groups = (end + 3) / 4 - first_group;
    const int share = (num_groups + gridDim.x - 1) / gridDim.x;
    const int from = first_group + blockIdx.x * share, to = min(from + share, first_group + num_groups);
    const float* const logits = args.logits + blockIdx.y * args.ld;
    float reached = -infinity();
    // The trip count is the same for all lanes of a warp, since they exchange `reached`.
    for (int base = from; base < to; base += kThreads) {
      const int group = base + threadIdx.x;
      if (group < to) {
        const Quad quad(logits, args.first_id, group, begin, end);
        if (temperature == 0) {
          for (int i = 0; i < 4; i++) offer(best, quad.x[i], 4 * group + i);
        } else {
          offer_noisy(best, reached, quad, group, temperature, address);
        }
      }
      if (temperature != 0 && base + kThreads < to) {
        reached = best.value;
        for (int offset = 16; offset > 0; offset /= 2)
          reached = fmaxf(reached, __shfl_xor_sync(kAllLanes, reached, offset));
      }
    }
  }
  best = block_best<kThreads>(best);
  if (threadIdx.x == 0) args.partials[blockIdx.y * kSampleSplits + blockIdx.x] = best;
}

// One warp per row.
__global__ void __launch_bounds__(32) join_kernel(SampleArgs args, int num_splits) {
  simt::wait_for_previous();
  Candidate best = no_candidate();
  for (int i = threadIdx.x; i < num_splits; i += 32) keep_better(best, args.partials[blockIdx.x * kSampleSplits + i]);
  best = warp_best(best);
  if (threadIdx.x == 0) {
    args.candidates[blockIdx.x] = best;
    if (args.tokens != nullptr) args.tokens[blockIdx.x] = best.id;
  }
}

__global__ void __launch_bounds__(128) choose_kernel(ChooseArgs args) {
  simt::wait_for_previous();
  const int row = blockIdx.x * 128 + threadIdx.x;
  if (row >= args.batch.num_rows) return;
  Candidate best = no_candidate();
  for (int r = 0; r < args.world_size; r++) keep_better(best, args.candidates[r * args.batch.num_rows + row]);
  args.tokens[row] = best.id;
}

}  // namespace

void sample(const SampleArgs& args, LaunchPlace place, LaunchPlace then) {
  const int num_rows = args.batch.num_rows;
  if (num_rows == 0) return;
  // About 1024 blocks fill the device. Not more: a thread with many ids skips more of them.
  const int wanted = (1024 + num_rows - 1) / num_rows, most = (args.num_ids + 4 * kThreads - 1) / (4 * kThreads);
  const int num_splits = std::max(1, std::min({wanted, most, kSampleSplits}));
  const dim3 grid(static_cast<unsigned>(num_splits), static_cast<unsigned>(num_rows));
  const simt::LaunchShape shape{grid, dim3(kThreads), 0, place};
  check(simt::launch(sample_kernel, shape, args), "sampling");
  const simt::LaunchShape of_rows{dim3(static_cast<unsigned>(num_rows)), dim3(32), 0, then};
  check(simt::launch(join_kernel, of_rows, args, num_splits), "joining candidates");
}

void choose(const ChooseArgs& args, LaunchPlace place) {
  if (args.batch.num_rows == 0) return;
  const simt::LaunchShape shape{dim3(static_cast<unsigned>((args.batch.num_rows + 127) / 128)), dim3(128), 0, place};
  check(simt::launch(choose_kernel, shape, args), "choosing tokens");
}

}  // namespace nds::cuda
