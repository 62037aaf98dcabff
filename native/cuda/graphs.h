// Work that a stream gets again and again: captured as a CUDA graph the second time, replayed from then on.
#pragma once
#include <array>
#include <functional>
#include <map>

#include "cuda/exchange.h"

namespace nds::cuda {

class Graphs {
 public:
  using Key = std::array<int, 5>;

  // Replays count in the traffic of `exchange`.
  Graphs(Exchange& exchange, cudaStream_t stream) : exchange_(exchange), stream_(stream) {}
  ~Graphs();
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;

  // Queues `work`, which must queue the same launches with the same arguments whenever the key is the same. The first
  // time it is not captured: then cuBLASLt chooses its algorithms, and NCCL makes its connections.
  void run(const Key& key, const std::function<void()>& work);
  // Drops all graphs, once the stream is done: for a change of an address that they hold.
  void clear();

 private:
  struct Graph {
    cudaGraphExec_t exec = nullptr;  // null until it is captured
    Traffic traffic;                 // of one launch
  };
  void capture(Graph& graph, const std::function<void()>& work);
  void destroy();

  Exchange& exchange_;
  cudaStream_t stream_;
  std::map<Key, Graph> graphs_;
};

}  // namespace nds::cuda
