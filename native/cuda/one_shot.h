// The one-shot all-reduce: each rank reads the partial sums of all ranks from their memory and adds them itself.
#pragma once
#include <cstdint>
#include <vector>

#include "cuda/device.h"
#include "cuda/kernels.h"

namespace nds::cuda {

constexpr int kMaxPeers = 8;
constexpr int kNumChannels = 32;    // max blocks of a launch: all of them fit on any device at once
constexpr int kAreaVectors = 1024;  // of four floats, that a rank publishes in a channel at a time

// What a rank shares with its peers, in its own device memory; starts as zeros. A channel is what the blocks of one
// index use on all ranks: it knows nothing of other channels, so blocks of one launch never wait for each other. Its
// epoch counts its uses, in device memory, so that a graph can be launched again. A rank overwrites an area two epochs
// later, for which it needs its peers' word that they are one epoch further, hence have read the area.
struct PeerBuffer {
  float4 areas[2][kNumChannels][kAreaVectors];  // of even and odd epochs
  uint32_t published[kNumChannels][kMaxPeers];  // latest epoch that a peer has published; that peer writes it
  uint32_t epochs[kNumChannels];                // of this rank
  uint32_t has_given_up;                        // 1: this rank waits for no peer any more
};

struct PeerGroup {
  PeerBuffer* buffers[kMaxPeers];  // of each rank, as this rank's device sees them
  int rank, world_size;
  uint64_t timeout_ns;        // of the wait for a peer
  const uint32_t* stop;       // in host memory: not 0 ends all waits
  unsigned long long* fault;  // of the step; a wait that ends in vain reports StepFault::lost_rank
};

struct OneShotInput {
  uint8_t rank, root, merges;
};

// out [count] = the partial sums of all ranks joined by a stack program (as in LinearWeight), + bias[i % width] where
// there is one. Not written where a wait was in vain. It takes neither the residual sum nor the norm: where the next
// operator adds, its kernel does both already, a row to a block, while here a row is spread over blocks so that a
// single token keeps many loads in flight.
struct OneShotArgs {
  PeerGroup group;
  const float* local;                   // [num_roots of this rank, count]
  OneShotInput inputs[kMaxJoinInputs];  // in tree order
  int num_inputs, num_local;            // roots of all ranks; of this one
  int channel_vectors;                  // of four floats, that a block adds
  const float* bias;                    // [width] or null
  int64_t width;                        // row stride of the joined matrix, a multiple of 4
  int64_t count;                        // a multiple of 4
  float* out;
};

// Whether the areas hold a sum of `count` elements with num_roots[r] >= 0 partial sums of rank r, at least one of all.
// A rank publishes at most 512 KiB.
bool one_shot_serves(const std::vector<int>& num_roots, int64_t count);

// Fills in inputs, counts and channel_vectors; merges [sum of num_roots]. The same on all ranks but for num_local.
void plan_one_shot(const std::vector<int>& num_roots, const std::vector<uint8_t>& merges, OneShotArgs& args);

// Every rank calls it with the same counts, merges, bias, in the same order.
void all_reduce_one_shot(const OneShotArgs& args, LaunchPlace place);

}  // namespace nds::cuda
