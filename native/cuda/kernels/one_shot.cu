// All-reduce of few elements between devices that read each other's memory.
#include <algorithm>

#include "cuda/check.h"
#include "cuda/kernels/fault.h"
#include "cuda/kernels/join.h"
#include "cuda/one_shot.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 256;
// Between looks at the host's word, which lies across the bus.
constexpr uint64_t kPatienceNs = 1000000;

// Waits until a peer has published an epoch of a channel. False, and a fault, where that is in vain.
__device__ bool meet(const PeerGroup& group, int peer, int channel, uint32_t epoch) {
  PeerBuffer* const mine = group.buffers[group.rank];
  const uint64_t start = simt::nanoseconds();
  while (!simt::spin_wait(&mine->published[channel][peer], epoch, kPatienceNs)) {
    // What has been given up once is not waited for again, by the launches after this one.
    const bool is_over = simt::load_acquire(&mine->has_given_up) != 0 || simt::load_acquire(group.stop) != 0;
    if (!is_over && simt::nanoseconds() - start < group.timeout_ns) continue;
    simt::store_release(&mine->has_given_up, 1);
    report_fault(group.fault, StepFault::lost_rank, peer);
    return false;
  }
  return true;
}

// Block c adds vectors c * channel_vectors and the channel_vectors - 1 after it, as far as there are so many.
__global__ void __launch_bounds__(kThreads) one_shot_kernel(OneShotArgs args) {
  simt::wait_for_previous();
  const PeerGroup& group = args.group;
  PeerBuffer* const mine = group.buffers[group.rank];
  const int channel = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const uint32_t epoch = mine->epochs[channel] + 1, parity = epoch % 2;
  const int64_t vectors = args.count / 4, begin = static_cast<int64_t>(channel) * args.channel_vectors;
  const int64_t left = vectors - begin;
  const int num_vectors = static_cast<int>(left < args.channel_vectors ? left : args.channel_vectors);
  const float4* const local = reinterpret_cast<const float4*>(args.local) + begin;

  float4* const area = mine->areas[parity][channel];
  for (int root = 0; root < args.num_local; root++) {
    for (int v = thread; v < num_vectors; v += kThreads)
      area[root * args.channel_vectors + v] = local[root * vectors + v];
  }
  __syncthreads();  // all of the area is written, and the epoch read
  if (thread == 0) mine->epochs[channel] = epoch;
  bool is_met = true;
  if (thread < group.world_size && thread != group.rank) {
    simt::store_release(&group.buffers[thread]->published[channel][group.rank], epoch);
    is_met = meet(group, thread, channel, epoch);
  }
  if (!__syncthreads_and(is_met)) return;

  for (int v = thread; v < num_vectors; v += kThreads) {
    float4 sum = join_inputs<float4>(
        args.num_inputs,
        [&](int i) {
          const OneShotInput input = args.inputs[i];
          return group.buffers[input.rank]->areas[parity][channel][input.root * args.channel_vectors + v];
        },
        [&](int i) { return args.inputs[i].merges; });
    if (args.bias != nullptr)
      sum = add_rn(sum, reinterpret_cast<const float4*>(args.bias)[(begin + v) % (args.width / 4)]);
    reinterpret_cast<float4*>(args.out)[begin + v] = sum;
  }
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int max_channel_vectors(const std::vector<int>& num_roots) {
  return kAreaVectors / std::max(1, *std::max_element(num_roots.begin(), num_roots.end()));
}

}  // namespace

bool one_shot_serves(const std::vector<int>& num_roots, int64_t count) {
  int num_inputs = 0;
  for (const int num : num_roots) num_inputs += num;
  return num_inputs > 0 && num_inputs <= kMaxJoinInputs && count % 4 == 0 &&
         divide_up(count / 4, kNumChannels) <= max_channel_vectors(num_roots);
}

void plan_one_shot(const std::vector<int>& num_roots, const std::vector<uint8_t>& merges, OneShotArgs& args) {
  args.num_inputs = 0;
  for (size_t rank = 0; rank < num_roots.size(); rank++) {
    for (int root = 0; root < num_roots[rank]; root++) {
      args.inputs[args.num_inputs] = {static_cast<uint8_t>(rank), static_cast<uint8_t>(root), merges[args.num_inputs]};
      args.num_inputs++;
    }
  }
  args.num_local = num_roots[args.group.rank];
  // A vector to a thread for as long as there are channels.
  const int64_t vectors = args.count / 4, wanted = std::min(kThreads, max_channel_vectors(num_roots));
  const int64_t channels = std::clamp<int64_t>(divide_up(vectors, wanted), 1, kNumChannels);
  args.channel_vectors = static_cast<int>(divide_up(vectors, channels));
}

void all_reduce_one_shot(const OneShotArgs& args, LaunchPlace place) {
  if (args.count == 0) return;
  const int channels = static_cast<int>(divide_up(args.count / 4, args.channel_vectors));
  check(simt::launch(one_shot_kernel, {dim3(channels), dim3(kThreads), 0, place}, args), "all_reduce_one_shot");
}

}  // namespace nds::cuda
