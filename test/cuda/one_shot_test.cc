// The one-shot all-reduce between ranks of one process, a stream each, against the plain join: bit for bit.
#include "cuda/one_shot.h"

#include <chrono>
#include <memory>
#include <thread>

#include "core/program/reduction_tree.h"
#include "cuda/step.h"
#include "harness.h"

namespace nds::cuda::test {
namespace {

constexpr uint64_t kSecond = 1000000000;

// Buffers of all ranks, and what each would find in a step. They share a device, which the backend never does: on a GPU
// their few blocks must run at the same time (main.cc).
struct Gang {
  explicit Gang(int world_size) : world_size(world_size) {
    for (int r = 0; r < world_size; r++) {
      buffers.push_back(std::make_unique<Device<uint8_t>>(std::vector<uint8_t>(sizeof(PeerBuffer), 0)));
      streams.emplace_back();
      must(cudaStreamCreateWithFlags(&streams.back(), cudaStreamNonBlocking));
    }
    must(cudaMallocHost(&stop, sizeof(*stop)));
    *stop = 0;
  }
  Gang(const Gang&) = delete;
  Gang& operator=(const Gang&) = delete;
  ~Gang() {
    for (const cudaStream_t own : streams) cudaStreamDestroy(own);
    cudaFreeHost(stop);
  }
  PeerGroup group(int rank, uint64_t timeout_ns) const {
    PeerGroup group{};
    for (int r = 0; r < world_size; r++) group.buffers[r] = reinterpret_cast<PeerBuffer*>(buffers[r]->data);
    group.rank = rank;
    group.world_size = world_size;
    group.timeout_ns = timeout_ns;
    group.stop = stop;
    group.fault = faults.data + rank;
    return group;
  }
  const int world_size;
  std::vector<std::unique_ptr<Device<uint8_t>>> buffers;
  std::vector<cudaStream_t> streams;
  const Device<unsigned long long> faults{std::vector<unsigned long long>(kMaxPeers, 0)};
  uint32_t* stop = nullptr;
};

// One sum of random partial sums, with and without a bias.
struct Sum {
  Sum(const std::vector<int>& num_roots, const std::vector<uint8_t>& merges, int64_t rows, int64_t width)
      : width(width), count(rows * width), bias(normals(static_cast<size_t>(width))), has_bias(any(0, 1) == 1) {
    JoinArgs args{};
    args.num_inputs = static_cast<int>(merges.size());
    std::vector<float> flat;
    for (const int num : num_roots) {
      const std::vector<float> mine = normals(static_cast<size_t>(num * count));
      locals.push_back(std::make_unique<Device<float>>(mine));
      outs.push_back(std::make_unique<Device<float>>(static_cast<size_t>(count)));
      flat.insert(flat.end(), mine.begin(), mine.end());
    }
    const Device<float> all(flat), out(static_cast<size_t>(count));
    for (size_t i = 0; i < merges.size(); i++) {
      args.inputs[i] = all.data + static_cast<int64_t>(i) * count;
      args.merges[i] = merges[i];
    }
    args.bias = has_bias ? bias.data : nullptr;
    args.width = width;
    args.count = count;
    args.out = out.data;
    join(args, stream);
    want = out.read();
  }
  void launch(const Gang& gang, int rank, const std::vector<int>& num_roots, const std::vector<uint8_t>& merges) const {
    OneShotArgs args{};
    args.group = gang.group(rank, 60 * kSecond);
    args.local = locals[rank]->data;
    args.bias = has_bias ? bias.data : nullptr;
    args.width = width;
    args.count = count;
    args.out = outs[rank]->data;
    plan_one_shot(num_roots, merges, args);
    all_reduce_one_shot(args, {gang.streams[rank], overlaps});
  }
  const int64_t width, count;
  const Device<float> bias;
  const bool has_bias;
  const bool overlaps = any(0, 1) == 1;  // the launch before it
  std::vector<std::unique_ptr<Device<float>>> locals, outs;
  std::vector<float> want;
};

}  // namespace

CUDA_TEST(one_shot_all_reduce) {
  // Nine heads on three ranks have 2, 2 and 1 roots; more ranks than chunks leave some without any.
  const int world_size = any(2, 4), num_chunks = any(0, 1) == 0 ? 9 : any(1, 20);
  std::vector<int> num_roots;
  for (int r = 0; r < world_size; r++) num_roots.push_back(rank_num_roots(num_chunks, world_size, r));
  const std::vector<uint8_t> merges = join_merges(num_chunks, world_size);
  const Gang gang(world_size);
  // Counts differ, hence the number of channels in use, whose epochs then do.
  std::vector<std::unique_ptr<Sum>> sums;
  for (int i = 0; i < 7; i++)
    sums.push_back(std::make_unique<Sum>(num_roots, merges, any(1, 6), any(0, 2) == 0 ? 4 * any(100, 400) : 32));
  const auto run = [&](int rank) {
    for (const auto& sum : sums) sum->launch(gang, rank, num_roots, merges);
    must(cudaStreamSynchronize(gang.streams[rank]));
  };
  std::vector<std::thread> threads;
  for (int r = 1; r < world_size; r++) threads.emplace_back(run, r);
  run(0);
  for (std::thread& thread : threads) thread.join();
  for (const auto& sum : sums)
    for (int r = 0; r < world_size; r++)
      expect_same("one-shot all-reduce of rank " + std::to_string(r), sum->outs[r]->read(), sum->want);
  expect_same("faults", gang.faults.read(), std::vector<unsigned long long>(kMaxPeers, 0));
}

CUDA_TEST(one_shot_limits) {
  const int64_t most = int64_t{kNumChannels} * kAreaVectors * 4;
  note(one_shot_serves({1, 1}, most) && !one_shot_serves({1, 1}, most + 4), "the largest sum of one root a rank");
  note(one_shot_serves({2, 2, 1}, most / 2) && !one_shot_serves({2, 2, 1}, most / 2 + 4), "… of two");
  note(!one_shot_serves({1, 1}, 6) && !one_shot_serves({0, 0}, 8), "an odd count, no sum");
  for (const int roots : {1, 2, 3, 6}) {
    for (const int64_t count : {int64_t{4}, int64_t{1024}, int64_t{4100}, int64_t{40000}, most / roots / 256 * 128}) {
      if (!one_shot_serves({roots, roots}, count)) continue;
      OneShotArgs args{};
      args.count = count;
      plan_one_shot({roots, roots}, std::vector<uint8_t>(2 * roots, 0), args);
      const int64_t channels = (count / 4 + args.channel_vectors - 1) / args.channel_vectors;
      note(channels <= kNumChannels && args.channel_vectors * roots <= kAreaVectors, "a sum that overflows its areas");
    }
  }
}

// A rank that never comes: by the deadline, then at once; and by a word of the host.
CUDA_TEST(one_shot_without_a_peer) {
  const std::vector<int> num_roots{1, 1, 1};
  const std::vector<uint8_t> merges = join_merges(3, 3);
  for (const bool stops : {false, true}) {
    const Gang gang(3);
    const Device<float> local(normals(64)), out(64);
    OneShotArgs args{};
    args.local = local.data;
    args.width = args.count = 64;
    args.out = out.data;
    // Rank 0 and then rank 2 miss rank 1; rank 0 has gone, but not without its sums.
    for (const int rank : {0, 2}) {
      args.group = gang.group(rank, stops ? 3600 * kSecond : kSecond / 100);
      // The host's word comes while rank 0 waits, and before rank 2 does.
      std::thread host([&] {
        if (!stops) return;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        __atomic_store_n(gang.stop, 1u, __ATOMIC_RELEASE);
      });
      plan_one_shot(num_roots, merges, args);
      for (int i = 0; i < 3; i++) all_reduce_one_shot(args, gang.streams[rank]);
      must(cudaStreamSynchronize(gang.streams[rank]));
      host.join();
    }
    const std::vector<unsigned long long> faults = gang.faults.read();
    const auto lost = [&](int rank) {
      return (faults[rank] & 0xffffffffu) == static_cast<unsigned long long>(StepFault::lost_rank) ? faults[rank] >> 32
                                                                                                   : ~0ull;
    };
    note(lost(2) == 1 && (lost(0) == 1 || lost(0) == 2), "the rank that is missed is not named");
    note(std::isnan(out.read()[0]), "a sum without all partial sums was written");
  }
}

}  // namespace nds::cuda::test
