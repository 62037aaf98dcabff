// The weights of one rank: vectors copied, embedding tables used in place where their type is kept, matrices packed.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/memory.h"
#include "core/program/packed_linear.h"
#include "core/program/program.h"
#include "cpu/kernels.h"
#include "cpu/thread_pool.h"

namespace nds::cpu {

struct Table {
  const uint8_t* rows = nullptr;
  DType dtype = DType::f32;
  int64_t num_cols = 0;
  int first_row = 0;
  int num_rows = 0;
};

// The kind of the weight decides which members are set.
struct Weight {
  std::vector<float> vector;  // concatenated pieces, each zero-padded to a multiple of 32
  Table table;
  HugeMemory converted;  // rows of a table that is stored in another type
  std::unique_ptr<PackedLinear> linear;
  std::vector<int32_t> columns;  // of linear
};

class CpuWeights {
 public:
  // @throws Error ERR_CHECKPOINT for a slice outside its file or a weight that its format cannot hold, ERR_SYSTEM if
  // memory runs out.
  CpuWeights(const ProgramSpec& program, const Kernels& kernels, ThreadPool& pool, const OnLoaded& on_loaded);

  const Weight& operator[](int id) const { return weights_[id]; }
  int64_t bytes() const { return bytes_; }
  // Of bytes(): read from the program's file of packed matrices; and why that was not read or written.
  int64_t file_bytes() const { return file_bytes_; }
  const std::string& notice() const { return notice_; }

 private:
  void load_vector(const WeightSpec& spec, Weight& weight);
  void load_table(const WeightSpec& spec, ThreadPool& pool, Weight& weight, const OnLoaded& on_loaded);
  void plan_linears(const ProgramSpec& program);
  void place_linears();
  bool read_file(const PackedFileSpec& file, ThreadPool& pool, const OnLoaded& on_loaded);
  void write_file(const PackedFileSpec& file, ThreadPool& pool, const OnLoaded& on_loaded);
  void pack(const ProgramSpec& program, const Kernels& kernels, ThreadPool& pool, const OnLoaded& on_loaded);

  std::vector<MappedFile> files_;
  std::vector<Weight> weights_;
  HugeMemory packed_;
  int64_t packed_bytes_ = 0, bytes_ = 0, file_bytes_ = 0;
  std::string notice_;
};

}  // namespace nds::cpu
