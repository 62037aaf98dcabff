// Collectives between processes of one host, over shared memory: the class behind make_shm().
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "comm/shm_lockstep.h"
#include "comm/shm_region.h"

namespace nds::comm {

class ShmCommunicator final : public Communicator {
 public:
  ShmCommunicator(std::shared_ptr<ShmRegion> region, const CommOptions& options)
      : lockstep_(std::move(region), options) {}

  int rank() const override { return lockstep_.rank(); }
  int world_size() const override { return lockstep_.world_size(); }
  void all_reduce(const float* const* local, const int* num_roots, int64_t count, const JoinFn& join,
                  float* out) override;
  void exchange_rows(uint8_t* rows, int64_t num_rows, int64_t row_bytes, int64_t stride, const int32_t* owner) override;
  void all_gather(const void* local, const int64_t* counts, void* out) override;
  void set_step(int64_t step) override { lockstep_.set_step(step); }
  void abort() override { lockstep_.abort(); }
  Stats take_stats() override { return lockstep_.take_stats(); }

 private:
  struct ReduceArgs {
    const float* const* local;
    const int* num_roots;
    const JoinFn* join;
    float* out;
  };
  void reduce_at_once(const ReduceArgs& args, int64_t count);
  void reduce_piece(const ReduceArgs& args, int64_t begin, int64_t end);
  void collect_inputs(const ReduceArgs& args, int64_t begin, int64_t stride);

  Lockstep lockstep_;
  std::vector<const float*> inputs_;
  std::vector<int64_t> row_order_;
};

// As make_shm, over a mapping that ranks share as threads of one process. @throws Error ERR_INTERNAL for a rank, world
// size or timeout out of range.
std::unique_ptr<Communicator> make_shm_over(std::shared_ptr<ShmRegion> region, const CommOptions& options);

}  // namespace nds::comm
