// Work around a pass: token counts of a history, inputs of a pass from a plan, state of slots from tokens.
#include "cuda/check.h"
#include "cuda/kernels/fault.h"
#include "cuda/step.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 256;

int blocks_for(int64_t count) {
  const int64_t blocks = (count + kThreads - 1) / kThreads;
  return static_cast<int>(blocks < 1 ? 1 : blocks > 1024 ? 1024 : blocks);
}

// The sequence of a row: the last with cu_query_lens[seq] <= row.
__device__ int sequence_of(const int32_t* cu_query_lens, int num_seqs, int row) {
  int begin = 0, end = num_seqs;
  while (end - begin > 1) {
    const int middle = begin + (end - begin) / 2;
    if (cu_query_lens[middle] <= row) {
      begin = middle;
    } else {
      end = middle;
    }
  }
  return begin;
}

__global__ void __launch_bounds__(kThreads) count_history_kernel(CountHistoryArgs args) {
  for (int i = blockIdx.x * kThreads + threadIdx.x; i < args.num_history; i += gridDim.x * kThreads) {
    uint32_t* const count = args.counts + args.history[i];
    if (i >= args.num_prompt_tokens) {
      atomicAdd(count, 1u);
    } else {
      atomicOr(count, kInPrompt);
    }
  }
}

__device__ void prepare_token(const PrepareArgs& a, int row) {
  const PassInputs& out = a.out;
  if (row >= a.num_tokens) {
    out.token_ids[row] = 0;
    out.positions[row] = 0;
    out.kv_slots[row] = -1;
    return;
  }
  const int seq = sequence_of(a.cu_query_lens, a.num_seqs, row);
  const DeviceSlot& slot = a.slot_table[a.slots[seq]];
  int id = a.token_ids[row];
  if (id == kNewestToken) {
    id = slot.newest_token;
  } else if (id <= kFirstDraft) {
    id = a.proposals == nullptr ? -1 : a.proposals[seq * kMaxPlanDrafts + (kFirstDraft - id)];
  }
  if (id < 0 || id >= a.vocab_size) {
    report_fault(a.fault, StepFault::bad_token, seq);
    id = 0;
  }
  const int position = slot.length + (row - a.cu_query_lens[seq]), place = position / a.block_size;
  const int first_block = a.cu_blocks[seq];
  const bool has_block = first_block + place < a.cu_blocks[seq + 1] && a.block_tables[first_block + place] >= 0;
  if (!has_block) report_fault(a.fault, StepFault::no_block, seq);
  out.token_ids[row] = id;
  out.positions[row] = position;
  out.kv_slots[row] =
      has_block ? static_cast<int64_t>(a.block_tables[first_block + place]) * a.block_size + position % a.block_size
                : -1;
}

__device__ void prepare_row(const PrepareArgs& a, int i) {
  LogitRow row{};
  row.row = -1;
  if (i < a.num_logit_rows) {
    row.row = a.logit_rows[i];
    row.seq = sequence_of(a.cu_query_lens, a.num_seqs, row.row);
    row.slot = a.slots[row.seq];
    row.kind = a.logit_row_kinds[i];
    row.target = a.logit_row_targets == nullptr ? -1 : a.logit_row_targets[i];
    const DeviceSlot& slot = a.slot_table[row.slot];
    const int begin = a.cu_query_lens[row.seq], end = a.cu_query_lens[row.seq + 1];
    row.num_drafts = a.num_drafts == nullptr ? 0 : a.num_drafts[row.seq];
    row.position = slot.length + (row.row - begin) + 1;
    row.num_output = row.position - slot.params.num_prompt_tokens;
    row.first_draft = end - row.num_drafts;
    row.num_before = max(0, row.row - (row.first_draft - 1));
  }
  a.out.rows[i] = row;
  a.out.row_indices[i] = row.row;
}

__device__ void prepare_sequence(const PrepareArgs& a, int seq) {
  const int begin = a.cu_query_lens[seq], end = a.cu_query_lens[seq + 1];
  a.out.cu_query_lens[seq] = begin;
  if (seq == a.num_seqs - 1) {
    a.out.cu_query_lens[a.num_seqs] = end;
    a.out.num_seqs[0] = a.num_seqs;
  }
  // Never past the sequence's blocks, whatever the slot says.
  const int room = (a.cu_blocks[seq + 1] - a.cu_blocks[seq]) * a.block_size;
  a.out.context_lens[seq] = min(a.slot_table[a.slots[seq]].length + (end - begin), room);
  a.out.first_blocks[seq] = a.cu_blocks[seq];
  const int num_drafts = a.num_drafts == nullptr ? 0 : a.num_drafts[seq];
  a.out.slots[seq] = a.slots[seq];
  a.out.num_drafts[seq] = num_drafts;
  const int first_sampled = end - 1 - num_drafts;
  int low = 0, high = a.num_logit_rows;
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (a.logit_rows[middle] < first_sampled) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  const bool is_sample = low < a.num_logit_rows && a.logit_rows[low] == first_sampled &&
                         a.logit_row_kinds[low] == static_cast<int32_t>(LogitRowKind::sample);
  a.out.first_samples[seq] = is_sample ? low : -1;
}

__global__ void __launch_bounds__(kThreads) prepare_kernel(PrepareArgs args) {
  const int first = blockIdx.x * kThreads + threadIdx.x, step = gridDim.x * kThreads;
  for (int i = first; i < args.padded_tokens; i += step) prepare_token(args, i);
  for (int i = first; i < args.padded_logit_rows; i += step) prepare_row(args, i);
  for (int i = first; i < args.num_seqs; i += step) prepare_sequence(args, i);
  for (int i = first; i < args.num_blocks; i += step) args.out.block_tables[i] = args.block_tables[i];
}

__device__ void append(DeviceSlot& slot, int32_t token, int max_history) {
  slot.newest_token = token;
  if (slot.params.keeps_history == 0) return;
  if (slot.num_history < max_history) slot.history[slot.num_history++] = token;
  if (slot.params.looks_back != 0) slot.counts[token]++;
}

__global__ void __launch_bounds__(kThreads) commit_kernel(CommitArgs args) {
  simt::wait_for_previous();
  const int seq = blockIdx.x * kThreads + threadIdx.x;
  if (seq >= args.in.num_seqs[0]) return;
  DeviceSlot& slot = args.slot_table[args.in.slots[seq]];
  const int begin = args.in.cu_query_lens[seq], end = args.in.cu_query_lens[seq + 1];
  const int num_rows = end - begin, num_drafts = args.in.num_drafts[seq];
  const int first = args.in.first_samples[seq];
  int num_accepted = args.num_accepted == nullptr ? -1 : args.num_accepted[seq];
  if (num_accepted < 0) {
    const int32_t* const drafts = args.in.token_ids + end - num_drafts;
    num_accepted = 0;
    while (num_accepted < num_drafts && args.tokens[first + num_accepted] == drafts[num_accepted]) num_accepted++;
    // Each sampled row has a token, accepted or not, unless no logit of it can be drawn.
    for (int j = 0; first >= 0 && j <= num_drafts; j++) {
      if (args.tokens[first + j] < 0) report_fault(args.fault, StepFault::no_number, seq);
    }
  }
  slot.length += num_rows - (num_drafts - num_accepted);
  slot.newest_token = -1;
  args.num_tokens[seq] = first < 0 ? 0 : num_accepted + 1;
  if (first < 0) return;
  for (int j = 0; j <= num_accepted; j++) {
    if (args.tokens[first + j] >= 0) append(slot, args.tokens[first + j], args.max_history);
  }
  slot.draft_length = min(slot.draft_length, slot.length);
}

__global__ void __launch_bounds__(kThreads) select_rows_kernel(SelectRowsArgs args) {
  int owner = args.world_size - 1;
  while (owner > 0 && args.first_rows[owner] > args.token_ids[blockIdx.x]) owner--;
  const int64_t row = blockIdx.x;
  const float* const from = args.parts + (owner * static_cast<int64_t>(args.rows) + row) * args.ld;
  for (int64_t i = threadIdx.x; i < args.ld; i += kThreads) args.out[row * args.ld + i] = from[i];
}

}  // namespace

void select_rows(const SelectRowsArgs& args, cudaStream_t stream) {
  const simt::LaunchShape shape{dim3(args.rows), dim3(kThreads), 0, stream};
  check(simt::launch(select_rows_kernel, shape, args), "selecting embeddings");
}

void count_history(const CountHistoryArgs& args, cudaStream_t stream) {
  check(cudaMemsetAsync(args.counts, 0, static_cast<size_t>(args.vocab_size) * 4, stream), "clearing token counts");
  if (args.num_history == 0) return;
  const simt::LaunchShape shape{dim3(blocks_for(args.num_history)), dim3(kThreads), 0, stream};
  check(simt::launch(count_history_kernel, shape, args), "counting the tokens of a history");
}

void prepare(const PrepareArgs& args, cudaStream_t stream) {
  int64_t most = args.padded_tokens;
  for (const int count : {args.padded_logit_rows, args.num_seqs, args.num_blocks}) most = count > most ? count : most;
  const simt::LaunchShape shape{dim3(blocks_for(most)), dim3(kThreads), 0, stream};
  check(simt::launch(prepare_kernel, shape, args), "preparing a pass");
}

void commit(const CommitArgs& args, simt::LaunchPlace place) {
  const simt::LaunchShape shape{dim3((args.max_seqs + kThreads - 1) / kThreads), dim3(kThreads), 0, place};
  check(simt::launch(commit_kernel, shape, args), "committing a step");
}

}  // namespace nds::cuda
