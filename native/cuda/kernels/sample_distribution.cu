// The distribution of a row after temperature and filters, as dense masses, and draws from it. One block per row.
#include "cuda/check.h"
#include "cuda/kernels/accept_draw.h"
#include "cuda/kernels/sample_filter.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 512;

__global__ void __launch_bounds__(kThreads) distribution_kernel(DistributionArgs args) {
  NDS_CUT_BUFFERS(buffers);
  const int listed = args.listed[blockIdx.x];
  const LogitRow row = args.batch.rows[listed];
  if (row.row < 0) return;
  const float* const logits = args.logits + listed * args.ld;
  const int64_t place = args.places == nullptr ? static_cast<int64_t>(blockIdx.x) : args.places[blockIdx.x];
  uint64_t* const masses = args.masses + place * args.num_ids;
  Elements elements;
  const Filter filter = block_filter<kThreads>(logits, args.num_ids, args.batch.slots[row.slot].params,
                                               args.batch.is_greedy, elements, buffers);
  for (int id = threadIdx.x; id < args.num_ids; id += kThreads) masses[id] = 0;
  __syncthreads();
  uint64_t sum = 0;
  if (filter.is_arg_max) {
    const int32_t best = block_arg_max<kThreads>(logits, args.num_ids).id;
    if (threadIdx.x == 0 && best >= 0) masses[best] = sum = kOneMass;
  } else {
    elements.each<kThreads>([&](uint32_t key, int id) {
      if (!filter.keeps(key, id)) return;
      masses[id] = mass_of(value_of(key), filter.largest);
      sum += masses[id];
    });
  }
  sum = low_half(block_sum_wide<kThreads>(sum));
  if (threadIdx.x == 0) args.totals[place] = sum;
}

__global__ void __launch_bounds__(kThreads) draw_kernel(DrawArgs args) {
  const LogitRow row = args.batch.rows[args.listed[blockIdx.x]];
  if (row.row < 0) return;
  const NoiseAddress address =
      address_of(args.batch.slots[row.slot].params, NoiseStream::draft, row.position, args.rounds[blockIdx.x]);
  const int64_t place = args.places == nullptr ? static_cast<int64_t>(blockIdx.x) : args.places[blockIdx.x];
  const uint64_t* const masses = args.masses + place * args.num_ids;
  const int32_t token =
      block_draw<kThreads>(args.num_ids, args.totals[place], address, [masses](int id) { return WideInt{masses[id]}; });
  if (threadIdx.x == 0) args.tokens[blockIdx.x] = token;
}

}  // namespace

void distribution(const DistributionArgs& args, cudaStream_t stream) {
  if (args.num_listed == 0) return;
  const simt::LaunchShape shape{dim3(static_cast<unsigned>(args.num_listed)), dim3(kThreads), 0, stream};
  check(simt::launch(distribution_kernel, shape, args), "making distributions");
}

void draw(const DrawArgs& args, cudaStream_t stream) {
  if (args.num_listed == 0) return;
  const simt::LaunchShape shape{dim3(static_cast<unsigned>(args.num_listed)), dim3(kThreads), 0, stream};
  check(simt::launch(draw_kernel, shape, args), "drawing drafts");
}

}  // namespace nds::cuda
