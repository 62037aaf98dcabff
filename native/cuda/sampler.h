// From a pass's logits to a token for every row, and to log-probabilities, over all ranks.
#pragma once
#include <vector>

#include "cuda/cuda_model.h"
#include "cuda/sampling.h"

namespace nds::cuda {

// Which work some row of a pass may need, as far as the host knows. Kernels skip rows that do not need it.
struct RowWishes {
  bool edits = false;    // some row's logits may be edited
  bool filters = false;  // some row has top-k, top-p or min-p
  bool reports = false;  // some row reports log-probabilities
  bool returns = false;  // some row is handed back whole
  bool judges = false;   // some row's whole distribution is needed
};

// Whether nothing but sample() follows from them.
inline bool is_plain(const RowWishes& w) { return !w.edits && !w.filters && !w.reports && !w.returns && !w.judges; }

class Sampler {
 public:
  Sampler(CudaModel& model, Exchange& exchange, cudaStream_t stream);

  // tokens [num_rows] = the token of each row of kind sample. Its launches belong to the pass of the model.
  void sample(const SamplingBatch& batch, const RowWishes& wishes, int32_t* tokens);
  // Fills `to` after sample, from whole_rows(): batch, tokens, cu_entries and the output are the caller's.
  void log_probabilities(LogprobArgs to);
  // Edited whole rows [num_rows, whole_ld()] of the last sample() with wishes.filters or wishes.judges.
  const float* edited_rows() const { return last_edited_; }
  // Raw whole rows [num_rows, whole_ld()] of the last sample() with wishes.reports or wishes.returns.
  const float* whole_rows() const;
  int64_t whole_ld() const;
  int64_t bytes() const { return memory_.size(); }

 private:
  bool is_alone() const { return exchange_.world_size() == 1; }
  void gather_whole(const float* local, int num_rows, float* out);

  CudaModel& model_;
  Exchange& exchange_;
  cudaStream_t stream_;
  DeviceMemory memory_;
  float* edited_ = nullptr;  // [max_logit_rows, ld] of this rank's ids
  float* raw_ = nullptr;     // [max_logit_rows, whole_ld] of all ranks, unedited
  const float* last_edited_ = nullptr;
  float* whole_ = nullptr;  // [max_logit_rows, whole_ld] of all ranks, edited
  float* parts_ = nullptr;  // gathered logits, rank after rank
  Candidate* partials_ = nullptr;
  Candidate* candidates_ = nullptr;
};

}  // namespace nds::cuda
