// The tokens of rows with filters: Gumbel arg-max over the ids that the filters keep. One block per row.
#include "cuda/check.h"
#include "cuda/kernels/sample_filter.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 1024;

__global__ void __launch_bounds__(kThreads) sample_filtered_kernel(SampleFilteredArgs args) {
  NDS_CUT_BUFFERS(buffers);
  const LogitRow row = args.batch.rows[blockIdx.x];
  if (!is_sampled(row) || !is_filtered(args.batch, row)) return;
  const DeviceParams& params = args.batch.slots[row.slot].params;
  const float* const logits = args.logits + blockIdx.x * args.ld;
  Elements elements;
  const Filter filter = block_filter<kThreads>(logits, args.num_ids, params, false, elements, buffers);
  Candidate best = no_candidate();
  if (filter.is_arg_max) {
    best = block_arg_max<kThreads>(logits, args.num_ids);
  } else {
    const NoiseAddress address = address_of(params, NoiseStream::target, row.position, 0);
    elements.each<kThreads>([&](uint32_t key, int id) {
      // Not offer(): a list is in no order of ids.
      if (filter.keeps(key, id)) keep_better(best, {__fadd_rn(value_of(key), gumbel_of(address, id)), id});
    });
    best = block_best<kThreads>(best);
  }
  if (threadIdx.x == 0) args.candidates[blockIdx.x] = best;
}

}  // namespace

void sample_filtered(const SampleFilteredArgs& args, cudaStream_t stream) {
  if (args.batch.num_rows == 0) return;
  const simt::LaunchShape shape{dim3(static_cast<unsigned>(args.batch.num_rows)), dim3(kThreads), 0, stream};
  check(simt::launch(sample_filtered_kernel, shape, args), "sampling with filters");
}

}  // namespace nds::cuda
