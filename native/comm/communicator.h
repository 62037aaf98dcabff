// Collectives between the ranks of a gang, called by one thread per rank, in the same order on every rank.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/progress.h"

namespace nds::comm {

// Adds partial sums: writes out[begin, end) from inputs[0 … num_inputs), which are in tree order. A communicator may
// call it once per part of the arrays; pointers and indices then count from the start of the part.
using JoinFn = std::function<void(const float* const* inputs, int64_t begin, int64_t end, float* out)>;

struct CommOptions {
  int rank = 0;
  int world_size = 1;
  int shm_fd = -1;  // shared memory, the same file on every rank; grown as needed
  int64_t step_timeout_ms = 60000;
  int64_t startup_timeout_ms = 600000;  // applies until the first set_step: ranks load at their own pace
  int first_rank = 0;                   // rank in messages of rank 0 here, which may be one of several hosts'
  bool crowded = false;                 // ranks, or their threads, outnumber what can run at once
  Progress progress = {};
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int world_size() const = 0;

  // Rank r contributes num_roots[r] arrays [count]; local[i] are this rank's. Every rank gets out [count], which `join`
  // joins from all ranks' arrays in rank order. out must not overlap local.
  virtual void all_reduce(const float* const* local, const int* num_roots, int64_t count, const JoinFn& join,
                          float* out) = 0;

  // Copies row i of `rows` (row_bytes each, stride bytes apart) from rank owner[i] to row i of every other rank.
  virtual void exchange_rows(uint8_t* rows, int64_t num_rows, int64_t row_bytes, int64_t stride,
                             const int32_t* owner) = 0;

  // Rank r contributes counts[r] bytes; out gets those of all ranks in rank order.
  virtual void all_gather(const void* local, const int64_t* counts, void* out) = 0;

  // Step of the following collectives, for error messages. The first call ends startup_timeout_ms.
  virtual void set_step(int64_t step) = 0;

  // Any thread may call this: a waiting collective, and every later one, throws ERR_CLOSED.
  virtual void abort() = 0;

  struct Stats {
    int64_t exchanged_bytes = 0;   // published by this rank
    int64_t all_reduce_bytes = 0;  // part of exchanged_bytes
    double wait_seconds = 0;       // waiting for other ranks
  };
  virtual Stats take_stats() = 0;  // since the last call
};

// @throws Error ERR_INTERNAL unless both timeouts are above 0.
void check_timeouts(const CommOptions& options);

std::unique_ptr<Communicator> make_local();
// Returns at once; the first collective waits for the other ranks. Communicators may follow each other on one shm_fd,
// the same number on every rank, even after a collective was left in the middle.
// @throws Error ERR_SYSTEM, ERR_MISMATCH for memory of another gang. Collectives throw ERR_STEP_TIMEOUT (naming step
// and peer), ERR_MISMATCH if ranks call different collectives, and ERR_CLOSED after abort() here or once a peer has
// left.
std::unique_ptr<Communicator> make_shm(const CommOptions& options);

}  // namespace nds::comm
