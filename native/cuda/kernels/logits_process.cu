// Edits of logits by sampling parameters, up to the temperature, in the order of step/process_logits.h. A barred id is
// -inf whatever its other edits, so that one step applies all edits of an id. A parameter's list holds an id at most
// once.
#include "cuda/check.h"
#include "cuda/kernels/sample_noise.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 256, kShare = 2048;  // ids of a block

constexpr uint32_t kBarred = 1, kBiased = 2;  // edits of an id by lists

__device__ inline bool penalizes(const DeviceParams& p) {
  return p.presence_penalty != 0 || p.frequency_penalty != 0 || p.repetition_penalty != 1;
}
__device__ inline bool bars_stops(const DeviceParams& p, int num_output) {
  return num_output < p.min_tokens && p.stops.size > 0;
}
__device__ inline bool edits(const DeviceParams& p, int num_output) {
  return p.allowed.size > 0 || p.num_bad_words > 0 || penalizes(p) || p.bias.size > 0 || bars_stops(p, num_output);
}

// Tokens before a row: its sequence's history, then drafts.
struct Before {
  const DeviceSlot& slot;
  const int32_t* drafts;
  int num_drafts;

  __device__ int32_t token(int place) const {
    return place < slot.num_history ? slot.history[place] : drafts[place - slot.num_history];
  }
  __device__ int num_drafted(int32_t id) const {
    int count = 0;
    for (int i = 0; i < num_drafts; i++) count += drafts[i] == id;
    return count;
  }
  // Whether the output, drafts included, ends with all tokens of the word but its last.
  __device__ bool is_begun(const int32_t* word, int size) const {
    const int num_begun = size - 1;
    if (num_begun == 0) return true;
    const int num_tokens = slot.num_history + num_drafts;
    if (num_tokens < slot.params.num_prompt_tokens + num_begun) return false;
    for (int i = 0; i < num_begun; i++) {
      if (token(num_tokens - num_begun + i) != word[i]) return false;
    }
    return true;
  }
};

__device__ float penalized(float logit, const DeviceParams& p, uint32_t seen, int num_drafted) {
  if (seen == 0 && num_drafted == 0) return logit;
  if (p.repetition_penalty != 1)
    logit = logit > 0 ? __fdiv_rn(logit, p.repetition_penalty) : __fmul_rn(logit, p.repetition_penalty);
  const int num_output = static_cast<int>(seen & ~kInPrompt) + num_drafted;
  if (num_output == 0) return logit;
  logit = __fsub_rn(logit, __fmul_rn(p.frequency_penalty, static_cast<float>(num_output)));
  return __fsub_rn(logit, p.presence_penalty);
}

// Edits by lists of the ids [first, first + kShare) of the block.
struct Marks {
  uint32_t* edits;  // [kShare] kBarred | kBiased
  float* biases;    // [kShare]
  int first;

  __device__ bool holds(int32_t id) const { return id >= first && id < first + kShare; }
  __device__ void bar(int32_t id) const {
    if (holds(id)) atomicOr(&edits[id - first], kBarred);
  }
  // By all threads of the block.
  __device__ void fill(const DeviceParams& p, const Before& before, int num_output) const {
    for (int i = threadIdx.x; i < kShare; i += kThreads) edits[i] = p.allowed.size > 0 ? kBarred : 0;
    __syncthreads();
    for (int i = threadIdx.x; i < p.allowed.size; i += kThreads) {
      if (holds(p.allowed.ids[i])) atomicExch(&edits[p.allowed.ids[i] - first], 0u);
    }
    __syncthreads();
    for (int w = threadIdx.x; w < p.num_bad_words; w += kThreads) {
      const int begin = p.cu_bad_words[w], size = p.cu_bad_words[w + 1] - begin;
      const int32_t* const word = p.bad_words.ids + begin;
      if (size > 0 && holds(word[size - 1]) && before.is_begun(word, size)) bar(word[size - 1]);
    }
    if (bars_stops(p, num_output)) {
      for (int i = threadIdx.x; i < p.stops.size; i += kThreads) bar(p.stops.ids[i]);
    }
    for (int i = threadIdx.x; i < p.bias.size; i += kThreads) {
      if (!holds(p.bias.ids[i])) continue;
      biases[p.bias.ids[i] - first] = p.bias_values[i];
      atomicOr(&edits[p.bias.ids[i] - first], kBiased);
    }
    __syncthreads();
  }
};

// grid (shares of the ids, num_rows)
__global__ void __launch_bounds__(kThreads) process_logits_kernel(ProcessLogitsArgs args) {
  SIMT_SHARED_ARRAY(uint32_t, edits_of, kShare);
  SIMT_SHARED_ARRAY(float, biases, kShare);
  const LogitRow row = args.batch.rows[blockIdx.y];
  const float* const logits = args.logits + blockIdx.y * args.ld;
  float* const edited = args.edited + blockIdx.y * args.ld;
  const int begin = blockIdx.x * kShare, end = min(begin + kShare, args.num_ids);
  if (!is_sampled(row)) return;
  const DeviceSlot& slot = args.batch.slots[row.slot];
  const DeviceParams& p = slot.params;
  if (!edits(p, row.num_output)) {
    for (int i = begin + threadIdx.x; edited != logits && i < end; i += kThreads) edited[i] = logits[i];
    return;
  }
  const Before before{slot, args.batch.token_ids + row.first_draft, row.num_before};
  const Marks marks{edits_of, biases, args.first_id + begin};
  marks.fill(p, before, row.num_output);
  const bool has_penalty = penalizes(p);
  for (int i = begin + threadIdx.x; i < end; i += kThreads) {
    const uint32_t edit = edits_of[i - begin];
    float logit = logits[i];
    if ((edit & kBarred) != 0) {
      logit = -infinity();
    } else {
      const int32_t id = args.first_id + i;
      if (has_penalty) logit = penalized(logit, p, slot.counts[id], before.num_drafted(id));
      if ((edit & kBiased) != 0) logit = __fadd_rn(logit, biases[i - begin]);
    }
    edited[i] = logit;
  }
}

}  // namespace

void process_logits(const ProcessLogitsArgs& args, cudaStream_t stream) {
  if (args.batch.num_rows == 0 || args.num_ids == 0) return;
  const unsigned num_shares = static_cast<unsigned>((args.num_ids + kShare - 1) / kShare);
  const dim3 grid(num_shares, static_cast<unsigned>(args.batch.num_rows));
  const simt::LaunchShape shape{grid, dim3(kThreads), 0, stream};
  check(simt::launch(process_logits_kernel, shape, args), "editing logits");
}

}  // namespace nds::cuda
