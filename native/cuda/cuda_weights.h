// The weights of one rank in device memory: vectors as fp32, tables and matrices row-major in the type in which they
// are kept. Columns, and the rows of matrices, are padded with zeros to multiples of 32.
#pragma once
#include <vector>

#include "comm/communicator.h"
#include "core/backend.h"
#include "core/memory.h"
#include "core/program/program.h"
#include "cuda/kernels.h"
#include "cuda/memory.h"

namespace nds::cuda {

struct DeviceTable {
  const void* rows = nullptr;
  DType dtype = DType::f32;
  int64_t ld = 0;
  int first_row = 0, num_rows = 0;
};

class CudaWeights {
 public:
  // Copies slices from the mapped checkpoint through pinned staging to the device. Collective over the ranks of `comm`,
  // which must take the same kernels. @throws Error ERR_CHECKPOINT for a slice outside its file, ERR_CUDA without
  // memory.
  CudaWeights(const ProgramSpec& program, comm::Communicator& comm, cudaStream_t stream, OnLoaded on_loaded);

  const float* vector(int id) const { return weights_[id].memory.as<float>(); }
  const DeviceTable& table(int id) const { return weights_[id].table; }
  const LinearWeight& linear(int id) const { return weights_[id].linear; }
  int64_t bytes() const { return bytes_; }

 private:
  static constexpr int kNumStages = 2;
  static constexpr int64_t kStageBytes = int64_t{16} << 20;
  struct Weight {
    DeviceMemory memory, order;  // elements; chunk edges and merges
    DeviceTable table;
    LinearWeight linear;
    std::vector<int32_t> edges;
    std::vector<uint8_t> merges;
  };
  // Pinned buffers that are copied from in turn. Copies in flight end before it does, also where loading fails.
  struct Staging {
    explicit Staging(cudaStream_t stream);
    ~Staging();
    // A buffer of kStageBytes that no copy reads any more; send() queues the copy of its first `bytes` bytes.
    uint8_t* next();
    void send(void* to, int64_t bytes);

    cudaStream_t stream;
    PinnedMemory buffers[kNumStages];
    cudaEvent_t is_free[kNumStages] = {};
    int current = 0;
  };
  void load_vector(const WeightSpec& spec, Weight& weight);
  void load_table(const WeightSpec& spec, Weight& weight);
  void load_linear(const WeightSpec& spec, Weight& weight);
  // Copies the rows of a slice, in dtype, to device rows of ld elements.
  void upload(const TensorSlice& slice, DType dtype, uint8_t* to, int64_t ld);
  void send(void* to, int64_t bytes);
  void agree_on_kernels(const ProgramSpec& program, comm::Communicator& comm);

  std::vector<MappedFile> files_;
  std::vector<Weight> weights_;
  Staging staging_;
  const OnLoaded on_loaded_;
  int64_t bytes_ = 0;
};

}  // namespace nds::cuda
