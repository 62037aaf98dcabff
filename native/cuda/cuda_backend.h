// A rank on a device: the state of every sequence, a model, and steps in flight.
#pragma once
#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "core/backend.h"
#include "core/plan/plan_view.h"
#include "cuda/cuda_model.h"
#include "cuda/cuda_slots.h"
#include "cuda/draft.h"
#include "cuda/exchange.h"
#include "cuda/sampler.h"

namespace nds::cuda {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const BackendOptions& options);
  ~CudaBackend() override;

  LoadReport load(LoadSpec spec) override;
  int max_in_flight() const override;
  void launch(int64_t step, const int32_t* directory, int64_t directory_size, const uint8_t* bytes,
              int64_t num_bytes) override {
    launch(view_plan(step, directory, directory_size, bytes, num_bytes));
  }
  bool is_done() override;
  StepResult collect() override;
  void abort() override;

 private:
  void launch(const PlanView& plan);
  // A range of Flight::lists, in elements.
  struct List {
    int64_t offset = 0;
    int count = 0;
  };
  // A step between its launch and its result.
  struct Flight {
    PinnedMemory upload, results, logprobs, returned;
    cudaEvent_t done = nullptr;
    cudaEvent_t draft_begin = nullptr, draft_end = nullptr;  // of a model with a draft
    bool has_draft = false;                                  // whether the draft model runs in this step
    int64_t step = 0;
    uint64_t plan_hash = 0;
    double start_seconds = 0;
    int num_seqs = 0, num_rows = 0;
    std::vector<Transition> slots;
    // Logit rows with log-probabilities, in order: index among logit rows, sequence, drafts before the row, and its
    // entries: its own token and the likeliest.
    struct Report {
      int row, seq, num_before, first_entry, num_entries;
    };
    std::vector<Report> reports;
    int64_t num_entries = 0;  // of all reports
    int num_returned = 0;
    // Index lists for log-probabilities and accept rules, uploaded with the plan; each List is a range of them.
    std::vector<int32_t> lists;
    List cu_entries;  // [num_rows + 1] prefix sums of entries
    List judged_seqs, judged_rows, p_places, q_places;
  };
  // Device addresses of the parts of an uploaded plan.
  struct DevicePlan {
    const int32_t *slots, *token_ids, *cu_query_lens, *block_tables, *cu_blocks, *num_drafts, *logit_rows, *kinds,
        *targets, *block_copies, *draft_lens, *draft_block_tables, *draft_cu_blocks, *lists;
  };

  DevicePlan upload(const PlanView& plan, Flight& flight);
  // Queues the plan's block copies, and the kernel that fills the inputs of the pass.
  PassInputs prepare_pass(const PlanView& plan, const DevicePlan& on_device, const PassBounds& padded);
  // Queues the log-probabilities of the sampled batch.
  void report(const SamplingBatch& batch, const DevicePlan& on_device, const Flight& flight);
  // Append to flight.lists: where each row's log-probabilities go, and the rows that an accept rule judges.
  void find_reports(const PlanView& plan, Flight& flight) const;
  void find_rounds(const PlanView& plan, Flight& flight) const;
  void run_draft(const PlanView& plan, const DevicePlan& on_device, const Flight& flight);
  void propose(int j, const PassBounds& bounds, const RowWishes& wanted);
  void sample_drafts(int num_rows, const RowWishes& wanted);
  void commit_drafts(const DraftPass& pass, int j);
  DraftPass draft_pass(const PassBounds& bounds) const;
  PassBounds proposal_bounds(int num_seqs) const;
  void reserve_distributions(int num_places);
  uint64_t* q_masses() const { return q_memory_.as<uint64_t>(); }  // [q_places_, sample_vocab_size]
  uint64_t* q_totals() const;                                      // [q_places_]
  void judge(const PlanView& plan, const DevicePlan& on_device, const Flight& flight, const SamplingBatch& batch,
             const PassInputs& inputs);
  bool judges() const { return draft_rule_ != DraftRule::coupled; }
  // Whether drafts are drawn from distributions q, which the accept rule then needs.
  bool draws_drafts() const { return judges() && !greedy_draft_; }
  RowWishes wishes(const PlanView& plan, const Flight& flight) const;
  void allocate_drafting();
  void download(const PlanView& plan, Flight& flight);
  double draft_seconds(const Flight& flight) const;
  void read_logprobs(const Flight& flight, const int32_t* num_tokens, StepResult& result) const;
  [[noreturn]] void throw_fault(const Flight& flight, unsigned long long fault);
  void wait(cudaEvent_t event);
  // Ends a step that a rank holds up. @throws Error ERR_STEP_TIMEOUT.
  [[noreturn]] void give_up(const Flight& flight, const std::string& what);
  void agree(const Flight& flight, StepResult& result);

  // The results of a step, one after the other in device memory.
  struct Results {
    unsigned long long* fault;
    int32_t *num_tokens, *first_samples, *tokens;
    int64_t bytes;
  };
  Results carve_results(uint8_t* base) const;
  // The log-probabilities of a step likewise: ids and logprobs [num_entries], ranks [num_rows].
  struct Logprobs {
    int32_t* ids;
    float* logprobs;
    int32_t* ranks;
    int64_t bytes;
  };
  static Logprobs carve_logprobs(uint8_t* base, const Flight& flight);

  static constexpr int kMaxInFlight = 2;
  const BackendOptions options_;
  int device_ = 0;
  std::atomic<bool> closed_{false};
  std::unique_ptr<HostFlag> stop_;  // ends the waits of kernels for other ranks
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<comm::Communicator> comm_;
  std::unique_ptr<Exchange> exchange_;
  std::unique_ptr<comm::Communicator> alone_;  // for a draft model that each rank has whole
  std::unique_ptr<Exchange> alone_exchange_;
  std::unique_ptr<OpTimes> times_;  // null unless traced
  std::unique_ptr<CudaModel> model_, draft_;
  std::unique_ptr<Sampler> sampler_, draft_sampler_;
  std::unique_ptr<Graphs> draft_graphs_;  // of all proposals of a step
  bool greedy_draft_ = false;
  DraftRule draft_rule_ = DraftRule::coupled;
  std::unique_ptr<CudaSlots> slots_;
  DeviceMemory plan_memory_, results_, logprob_memory_, draft_memory_, p_memory_, q_memory_;
  Results result_{};
  int q_places_ = 0;  // distributions that q_memory_ holds
  // Buffers of drafting: proposals [max_num_seqs, kMaxPlanDrafts]; tokens and 0, 1, 2 … per logit row; accepted drafts
  // per sequence, then per round; tokens and Round per round.
  int32_t *proposals_ = nullptr, *draft_tokens_ = nullptr, *iota_ = nullptr;
  DraftState draft_state_{};
  int32_t *num_accepted_ = nullptr, *round_accepted_ = nullptr, *round_tokens_ = nullptr;
  Round* rounds_ = nullptr;
  Flight flights_[kMaxInFlight];
  std::deque<int> in_flight_;  // indices of flights_, oldest first
  int next_flight_ = 0;
  double last_end_seconds_ = 0;
  Traffic last_traffic_;  // of the exchange, when a result was last collected
};

}  // namespace nds::cuda
