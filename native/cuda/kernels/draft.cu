// The draft model's part of a step: inputs of its passes, its proposals, and the results of an accept rule on them.
#include "cuda/check.h"
#include "cuda/draft.h"
#include "cuda/kernels/fault.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 256;

__device__ bool wants_draft(const PrepareDraftArgs& a, int seq) {
  return a.num_drafts != nullptr && a.num_drafts[seq] > a.pass &&
         a.token_ids[a.cu_query_lens[seq + 1] - 1] <= kFirstDraft;
}

// Number of tokens of a sequence of the plan in this pass.
__device__ int num_tokens_of(const PrepareDraftArgs& a, int seq) {
  if (a.pass > 0) return wants_draft(a, seq) ? 1 : 0;
  const DeviceSlot& slot = a.slot_table[a.slots[seq]];
  return max(0, min(a.draft_lens[seq], slot.num_history - slot.draft_length));
}

// Writes sequence `seq` of the plan as sequence `place` of the pass, with `count` tokens from row `begin` on.
__device__ void prepare_sequence(const PrepareDraftArgs& a, int seq, int place, int begin, int count) {
  const DeviceSlot& slot = a.slot_table[a.slots[seq]];
  const int first_block = a.cu_blocks[seq], room = (a.cu_blocks[seq + 1] - first_block) * a.block_size;
  a.out.cu_query_lens[place] = begin;
  a.out.context_lens[place] = min(slot.draft_length + count, room);
  a.out.first_blocks[place] = first_block;
  a.out.first_samples[place] = a.slots[seq];
}

__device__ void prepare_token(const PrepareDraftArgs& a, int row, int seq, int offset) {
  const DeviceSlot& slot = a.slot_table[a.slots[seq]];
  const int position = slot.draft_length + offset, place = position / a.block_size, first_block = a.cu_blocks[seq];
  int id = a.pass > 0 ? a.proposals[seq * kMaxPlanDrafts + a.pass - 1] : slot.history[position];
  // A prompt may hold ids past the vocabulary of the draft model (padding of the target's). They become id 0 on every
  // rank.
  if (id < 0 || id >= a.vocab_size) id = 0;
  const bool has_block = first_block + place < a.cu_blocks[seq + 1] && a.block_tables[first_block + place] >= 0;
  if (!has_block) report_fault(a.fault, StepFault::no_block, seq);
  a.out.token_ids[row] = id;
  a.out.positions[row] = position;
  a.out.kv_slots[row] =
      has_block ? static_cast<int64_t>(a.block_tables[first_block + place]) * a.block_size + position % a.block_size
                : -1;
}

__device__ void prepare_padding(const PrepareDraftArgs& a, int row) {
  a.out.token_ids[row] = 0;
  a.out.positions[row] = 0;
  a.out.kv_slots[row] = -1;
}

// first_rows[seq]: first row of the sequence in the pass.
__device__ void prepare_row(const PrepareDraftArgs& a, int i, const int32_t* first_rows) {
  LogitRow row{};
  row.row = -1;
  if (i < a.num_rows) {
    const int seq = a.sampling_seqs[i];
    const DeviceSlot& slot = a.slot_table[a.slots[seq]];
    const int count = first_rows[seq + 1] - first_rows[seq];
    row.row = first_rows[seq + 1] - 1;
    row.seq = seq;
    row.slot = a.slots[seq];
    row.kind = static_cast<int32_t>(LogitRowKind::sample);
    row.target = -1;
    row.position = slot.draft_length + count;
    row.num_output = row.position - slot.params.num_prompt_tokens;
    row.first_draft = seq * kMaxPlanDrafts;
    row.num_before = a.pass;
    row.num_drafts = a.num_drafts[seq];
    a.draw_rounds[i] = row.position - a.pass;
  }
  a.out.rows[i] = row;
  a.out.row_indices[i] = row.row;
}

// One block: sequences without tokens leave no gap, so each place is a prefix sum over all sequences before it.
__global__ void __launch_bounds__(kThreads) prepare_draft_kernel(PrepareDraftArgs args) {
  simt::SharedCarver carver;
  int32_t* const first_rows = carver.take<int32_t>(args.num_seqs + 1);
  int32_t* const places = carver.take<int32_t>(args.num_seqs + 1);
  for (int seq = threadIdx.x; seq < args.num_seqs; seq += kThreads) first_rows[seq] = num_tokens_of(args, seq);
  __syncthreads();
  if (threadIdx.x == 0) {
    int row = 0, place = 0;
    for (int seq = 0; seq < args.num_seqs; seq++) {
      const int count = first_rows[seq];
      first_rows[seq] = row;
      places[seq] = place;
      row += count;
      place += count > 0 ? 1 : 0;
    }
    first_rows[args.num_seqs] = row;
    places[args.num_seqs] = place;
    args.out.num_seqs[0] = place;
    args.out.cu_query_lens[place] = row;
  }
  __syncthreads();
  const int num_tokens = first_rows[args.num_seqs];
  for (int seq = threadIdx.x; seq < args.num_seqs; seq += kThreads) {
    const int count = first_rows[seq + 1] - first_rows[seq];
    if (count > 0) prepare_sequence(args, seq, places[seq], first_rows[seq], count);
  }
  for (int row = threadIdx.x; row < args.padded_tokens; row += kThreads) {
    if (row >= num_tokens) {
      prepare_padding(args, row);
      continue;
    }
    int begin = 0, end = args.num_seqs;  // the last sequence with first_rows <= row; it has tokens
    while (end - begin > 1) {
      const int middle = begin + (end - begin) / 2;
      if (first_rows[middle] <= row) {
        begin = middle;
      } else {
        end = middle;
      }
    }
    prepare_token(args, row, begin, row - first_rows[begin]);
  }
  for (int i = threadIdx.x; i < args.padded_logit_rows; i += kThreads) prepare_row(args, i, first_rows);
  for (int i = threadIdx.x; i < args.num_blocks; i += kThreads) args.out.block_tables[i] = args.block_tables[i];
}

__global__ void __launch_bounds__(kThreads) commit_draft_kernel(CommitDraftArgs args) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i < args.in.num_seqs[0]) {
    args.slot_table[args.pass_slots[i]].draft_length += args.in.cu_query_lens[i + 1] - args.in.cu_query_lens[i];
  }
  if (i >= args.num_rows) return;
  const int seq = args.sampling_seqs[i];
  const int32_t token = args.tokens[i];
  if (token < 0) report_fault(args.fault, StepFault::no_number, seq);
  args.proposals[seq * kMaxPlanDrafts + args.pass] = token < 0 ? 0 : token;
}

__global__ void __launch_bounds__(kThreads) prepare_rounds_kernel(PrepareRoundsArgs args) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i < args.num_seqs) args.num_accepted[i] = -1;
  if (i >= args.num_rounds) return;
  const int first = args.first_samples[args.seqs[i]];
  const LogitRow& row = args.rows[first];
  const int64_t p = args.p_places[i], q = args.q_places[i];
  args.rounds[i] = {row.slot,
                    row.num_drafts,
                    row.first_draft,
                    row.position,
                    args.p_masses + p * args.num_ids,
                    args.p_totals + p,
                    q < 0 ? nullptr : args.q_masses + q * args.num_ids,
                    q < 0 ? nullptr : args.q_totals + q};
}

__global__ void __launch_bounds__(kThreads) apply_rounds_kernel(ApplyRoundsArgs args) {
  const int round = blockIdx.x * kThreads + threadIdx.x;
  if (round >= args.num_rounds) return;
  const int seq = args.seqs[round], accepted = args.round_accepted[round], first = args.first_samples[seq];
  const int32_t* const drafts = args.token_ids + args.cu_query_lens[seq + 1] - args.num_drafts[seq];
  for (int j = 0; j < accepted; j++) args.tokens[first + j] = drafts[j];
  args.tokens[first + accepted] = args.round_tokens[round];
  if (args.round_tokens[round] < 0) report_fault(args.fault, StepFault::no_number, seq);
  args.num_accepted[seq] = accepted;
}

}  // namespace

void prepare_draft(const PrepareDraftArgs& args, cudaStream_t stream) {
  const size_t shared = 2 * ((static_cast<size_t>(args.num_seqs) + 1) * 4 + 15) / 16 * 16 + 32;
  check(simt::launch(prepare_draft_kernel, {dim3(1), dim3(kThreads), shared, stream}, args),
        "preparing a pass of the draft");
}

void commit_draft(const CommitDraftArgs& args, cudaStream_t stream) {
  const int count = args.max_seqs > args.num_rows ? args.max_seqs : args.num_rows;
  const simt::LaunchShape shape{dim3((count + kThreads - 1) / kThreads), dim3(kThreads), 0, stream};
  check(simt::launch(commit_draft_kernel, shape, args), "committing a pass of the draft");
}

void prepare_rounds(const PrepareRoundsArgs& args, cudaStream_t stream) {
  const int count = args.num_seqs > args.num_rounds ? args.num_seqs : args.num_rounds;
  const simt::LaunchShape shape{dim3((count + kThreads - 1) / kThreads), dim3(kThreads), 0, stream};
  check(simt::launch(prepare_rounds_kernel, shape, args), "preparing rounds of drafts");
}

void apply_rounds(const ApplyRoundsArgs& args, cudaStream_t stream) {
  if (args.num_rounds == 0) return;
  const simt::LaunchShape shape{dim3((args.num_rounds + kThreads - 1) / kThreads), dim3(kThreads), 0, stream};
  check(simt::launch(apply_rounds_kernel, shape, args), "accepting drafts");
}

}  // namespace nds::cuda
