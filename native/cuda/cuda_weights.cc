// The weights of one rank in device memory.
#include "cuda/cuda_weights.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "core/convert.h"
#include "core/error.h"
#include "core/program/packed_linear.h"
#include "core/program/reduction_tree.h"
#include "core/program/slice_reader.h"
#include "core/program/slice_source.h"
#include "core/round_up.h"

namespace nds::cuda {
CudaWeights::CudaWeights(const ProgramSpec& program, comm::Communicator& comm, cudaStream_t stream, OnLoaded on_loaded)
    : weights_(program.weights.size()), staging_(stream), on_loaded_(std::move(on_loaded)) {
  files_.reserve(program.files.size());
  for (const std::string& path : program.files) files_.emplace_back(path);
  for (size_t i = 0; i < weights_.size(); i++) {
    const WeightSpec& spec = program.weights[i];
    if (is_quantized(spec.format) || spec.format == WeightFormat::fp8) {
      throw Error("ERR_UNSUPPORTED", "Expected float32, bfloat16 or float16 weights on CUDA for " +
                                         spec.pieces[0].name + " but received a quantized format: use the CPU");
    }
    if (spec.kind == WeightKind::vector) load_vector(spec, weights_[i]);
    if (spec.kind == WeightKind::table) load_table(spec, weights_[i]);
    if (spec.kind == WeightKind::linear) load_linear(spec, weights_[i]);
  }
  check(cudaStreamSynchronize(stream), "uploading weights");
  files_.clear();
  agree_on_kernels(program, comm);
}

CudaWeights::Staging::Staging(cudaStream_t stream) : stream(stream) {
  for (cudaEvent_t& event : is_free) check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
}

CudaWeights::Staging::~Staging() {
  cudaStreamSynchronize(stream);
  for (const cudaEvent_t event : is_free) cudaEventDestroy(event);
}

uint8_t* CudaWeights::Staging::next() {
  current = (current + 1) % kNumStages;
  check(cudaEventSynchronize(is_free[current]), "uploading weights");
  return buffers[current].reserve(kStageBytes);
}

void CudaWeights::Staging::send(void* to, int64_t bytes) {
  check(cudaMemcpyAsync(to, buffers[current].data(), static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream),
        "uploading weights");
  check(cudaEventRecord(is_free[current], stream), "uploading weights");
}

void CudaWeights::send(void* to, int64_t bytes) {
  staging_.send(to, bytes);
  on_loaded_(bytes);
}

void CudaWeights::upload(const TensorSlice& slice, DType dtype, uint8_t* to, int64_t ld) {
  const int64_t size = static_cast<int64_t>(dtype_size(dtype)), row_bytes = ld * size;
  const SliceReader reader(files_, slice, dtype);
  const int64_t used = slice.num_slice_cols() * size, rows_at_once = std::max<int64_t>(1, kStageBytes / row_bytes);
  if (row_bytes > kStageBytes) throw Error("ERR_UNSUPPORTED", "Expected rows of at most 16 MiB for " + slice.name);
  for (int64_t row = 0; row < slice.num_rows(); row += rows_at_once) {
    const int64_t count = std::min(rows_at_once, slice.num_rows() - row);
    uint8_t* stage = staging_.next();
    reader.read(row, count, stage, ld);
    for (int64_t i = 0; i < count; i++)
      std::memset(stage + i * row_bytes + used, 0, static_cast<size_t>(row_bytes - used));
    send(to + row * row_bytes, count * row_bytes);
  }
}

void CudaWeights::load_vector(const WeightSpec& spec, Weight& weight) {
  std::vector<float> values;
  for (const TensorSlice& piece : spec.pieces) {
    const size_t begin = values.size();
    values.resize(begin + static_cast<size_t>(round_up(piece.num_slice_cols(), kPanel)));
    widen(slice_source(files_.at(piece.file), piece), piece.dtype, piece.num_slice_cols(), values.data() + begin);
  }
  const int64_t bytes = static_cast<int64_t>(values.size()) * 4;
  if (bytes > kStageBytes)
    throw Error("ERR_UNSUPPORTED", "Expected a vector of at most 16 MiB for " + spec.pieces[0].name);
  weight.memory = DeviceMemory(bytes, "weights");
  std::memcpy(staging_.next(), values.data(), static_cast<size_t>(bytes));
  send(weight.memory.as<>(), bytes);
  bytes_ += bytes;
}

void CudaWeights::load_table(const WeightSpec& spec, Weight& weight) {
  const TensorSlice& slice = spec.pieces[0];
  const int64_t ld = round_up(slice.num_cols, kPanel), size = static_cast<int64_t>(dtype_size(spec.dtype));
  weight.memory = DeviceMemory(slice.num_rows() * ld * size, "weights");
  upload(slice, spec.dtype, weight.memory.as<>(), ld);
  weight.table = {weight.memory.as<>(), spec.dtype, ld, static_cast<int>(spec.first_row),
                  static_cast<int>(slice.num_rows())};
  bytes_ += weight.memory.size();
}

void CudaWeights::load_linear(const WeightSpec& spec, Weight& weight) {
  int64_t num_rows = 0;
  for (const TensorSlice& piece : spec.pieces) num_rows += round_up(piece.num_rows(), kPanel);
  const DType dtype = row_dtype(spec.format);
  const int64_t size = static_cast<int64_t>(dtype_size(dtype)), ld = round_up(spec.chunk_edges.back(), kPanel);
  weight.memory = DeviceMemory(num_rows * ld * size, "weights");
  check(cudaMemsetAsync(weight.memory.as<>(), 0, static_cast<size_t>(weight.memory.size()), staging_.stream),
        "clearing weights");
  int64_t row = 0;
  for (const TensorSlice& piece : spec.pieces) {
    upload(piece, dtype, weight.memory.as<>() + row * ld * size, ld);
    row += round_up(piece.num_rows(), kPanel);
  }
  const int num_chunks = static_cast<int>(spec.chunk_edges.size()) - 1;
  weight.edges.assign(spec.chunk_edges.begin(), spec.chunk_edges.end());
  weight.merges = local_merges(spec.num_chunks, spec.first_chunk, spec.first_chunk + num_chunks);
  const int64_t edge_bytes = int64_t{4} * (num_chunks + 1);
  weight.order = DeviceMemory(edge_bytes + num_chunks, "weights");
  uint8_t* stage = staging_.next();
  std::memcpy(stage, weight.edges.data(), static_cast<size_t>(edge_bytes));
  std::memcpy(stage + edge_bytes, weight.merges.data(), static_cast<size_t>(num_chunks));
  send(weight.order.as<>(), edge_bytes + num_chunks);

  LinearWeight& linear = weight.linear;
  linear.data = weight.memory.as<>();
  linear.dtype = dtype;
  linear.num_rows = static_cast<int>(num_rows);
  linear.k = spec.chunk_edges.back();
  linear.ld = ld;
  linear.num_chunks = num_chunks;
  linear.chunk_edges = weight.order.as<int32_t>();
  linear.merges = weight.order.as<>() + edge_bytes;
  linear.host_edges = weight.edges.data();
  linear.host_merges = weight.merges.data();
  int depth = 0;
  for (const uint8_t count : weight.merges) {
    linear.stack_depth = std::max(linear.stack_depth, ++depth);
    depth -= count;
  }
  linear.num_roots = depth;
  bytes_ += weight.memory.size();
}

// A matrix goes to tensor cores only where the parts of all ranks qualify: every rank must take the same kernels.
void CudaWeights::agree_on_kernels(const ProgramSpec& program, comm::Communicator& comm) {
  std::vector<uint8_t> mine(weights_.size(), 0);
  for (size_t i = 0; i < weights_.size(); i++) {
    const LinearWeight& linear = weights_[i].linear;
    if (linear.data == nullptr) continue;
    const bool is_aligned =
        std::all_of(weights_[i].edges.begin(), weights_[i].edges.end(), [](int32_t edge) { return edge % 32 == 0; });
    mine[i] = is_aligned && linear.dtype == DType::bf16 && program.dtype == DType::bf16 ? 1 : 0;
  }
  std::vector<uint8_t> all(mine.size() * static_cast<size_t>(comm.world_size()));
  const std::vector<int64_t> counts(comm.world_size(), static_cast<int64_t>(mine.size()));
  comm.all_gather(mine.data(), counts.data(), all.data());
  for (size_t i = 0; i < weights_.size(); i++) {
    bool everywhere = true;
    for (int r = 0; r < comm.world_size(); r++) everywhere = everywhere && all[r * mine.size() + i] != 0;
    weights_[i].linear.on_tensor_cores = everywhere;
  }
}

}  // namespace nds::cuda
