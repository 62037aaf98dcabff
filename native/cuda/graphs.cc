// Work that a stream gets again and again: captured as a CUDA graph the second time, replayed from then on.
#include "cuda/graphs.h"

namespace nds::cuda {
namespace {

constexpr size_t kMaxGraphs = 96;

}  // namespace

Graphs::~Graphs() { destroy(); }

void Graphs::destroy() {
  for (const auto& [key, graph] : graphs_) {
    if (graph.exec != nullptr) cudaGraphExecDestroy(graph.exec);
  }
  graphs_.clear();
}

void Graphs::clear() {
  if (graphs_.empty()) return;
  wait_for(stream_, nullptr);
  destroy();
}

void Graphs::run(const Key& key, const std::function<void()>& work) {
  auto found = graphs_.find(key);
  if (found == graphs_.end()) {
    if (graphs_.size() >= kMaxGraphs) clear();
    graphs_.emplace(key, Graph{});
    return work();
  }
  Graph& graph = found->second;
  if (graph.exec == nullptr) {
    capture(graph, work);
  } else {
    exchange_.count(graph.traffic);
  }
  check(cudaGraphLaunch(graph.exec, stream_), "launching a graph");
}

void Graphs::capture(Graph& graph, const std::function<void()>& work) {
  const Traffic before = exchange_.traffic();
  cudaGraph_t captured = nullptr;
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "capturing a graph");
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream_, &captured);
    throw;
  }
  check(cudaStreamEndCapture(stream_, &captured), "capturing a graph");
  check(cudaGraphInstantiate(&graph.exec, captured, 0), "making a graph");
  cudaGraphDestroy(captured);
  graph.traffic = exchange_.traffic() - before;
}

}  // namespace nds::cuda
