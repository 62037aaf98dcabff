// The draft model's part of a step: inputs of its passes, and its proposals.
#include "cuda/check.h"
#include "cuda/draft.h"
#include "cuda/kernels/fault.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 256;

__device__ int num_drafts_of(const PrepareDraftArgs& a, int seq) {
  const bool proposes = a.num_drafts != nullptr && a.token_ids[a.cu_query_lens[seq + 1] - 1] <= kFirstDraft;
  return proposes ? a.num_drafts[seq] : 0;
}

__device__ int num_tokens_of(const PrepareDraftArgs& a, int seq) {
  const DeviceSlot& slot = a.pass.slot_table[a.slots[seq]];
  return max(0, min(a.draft_lens[seq], slot.num_history - slot.draft_length));
}

// Writes sequence `place` of the pass, with `count` tokens from row `begin` on.
__device__ void write_sequence(const DraftPass& p, const DraftSeq& s, int place, int begin, int count) {
  p.inputs.cu_query_lens[place] = begin;
  p.inputs.context_lens[place] = min(p.slot_table[s.slot].draft_length + count, s.num_blocks * p.block_size);
  p.inputs.first_blocks[place] = s.first_block;
  p.state.slots[place] = s.slot;
}

__device__ void write_token(const DraftPass& p, const DraftSeq& s, const int32_t* block_tables, int row, int position,
                            int id) {
  const int place = position / p.block_size;
  const int block = place < s.num_blocks ? block_tables[s.first_block + place] : -1;
  if (block < 0) report_fault(p.fault, StepFault::no_block, s.seq);
  // A prompt may hold ids past the vocabulary of the draft model (padding of the target's). They become id 0 on every
  // rank.
  p.inputs.token_ids[row] = id < 0 || id >= p.vocab_size ? 0 : id;
  p.inputs.positions[row] = position;
  p.inputs.kv_slots[row] = block < 0 ? -1 : static_cast<int64_t>(block) * p.block_size + position % p.block_size;
}

// Logit row i of pass `index` samples after token row `row`, the last of `count` of its sequence.
__device__ void write_logit_row(const DraftPass& p, const DraftSeq& s, int index, int i, int row, int count) {
  const DeviceSlot& slot = p.slot_table[s.slot];
  LogitRow out{};
  out.row = row;
  out.seq = s.seq;
  out.slot = s.slot;
  out.kind = static_cast<int32_t>(LogitRowKind::sample);
  out.target = -1;
  out.position = slot.draft_length + count;
  out.num_output = out.position - slot.params.num_prompt_tokens;
  out.first_draft = s.seq * kMaxPlanDrafts;
  out.num_before = index;
  out.num_drafts = s.num_drafts;
  p.inputs.rows[i] = out;
  p.inputs.row_indices[i] = row;
  p.state.draw_rounds[i] = out.position - index;
  p.state.places[i] = s.first_place + index;
}

__device__ void write_padding(const DraftPass& p, int num_tokens, int num_rows) {
  for (int row = num_tokens + threadIdx.x; row < p.padded_tokens; row += kThreads) {
    p.inputs.token_ids[row] = 0;
    p.inputs.positions[row] = 0;
    p.inputs.kv_slots[row] = -1;
  }
  LogitRow none{};
  none.row = -1;
  for (int i = num_rows + threadIdx.x; i < p.padded_logit_rows; i += kThreads) {
    p.inputs.rows[i] = none;
    p.inputs.row_indices[i] = -1;
  }
}

// counts[i] becomes the sum of those before it, for i to `size`; returns the sum of all. One thread.
__device__ int exclusive_sums(int32_t* counts, int size) {
  int sum = 0;
  for (int i = 0; i < size; i++) {
    const int count = counts[i];
    counts[i] = sum;
    sum += count;
  }
  return counts[size] = sum;
}

// The last i of `size` ascending sums with sums[i] <= value.
__device__ int last_at_most(const int32_t* sums, int size, int value) {
  int begin = 0, end = size;
  while (end - begin > 1) {
    const int middle = begin + (end - begin) / 2;
    if (sums[middle] <= value) {
      begin = middle;
    } else {
      end = middle;
    }
  }
  return begin;
}

// One block: sequences without tokens leave no gap, so each place is a prefix sum over all sequences before it.
__global__ void __launch_bounds__(kThreads) prepare_draft_kernel(PrepareDraftArgs args) {
  simt::SharedCarver carver;
  const int num_seqs = args.num_seqs;
  int32_t* const first_rows = carver.take<int32_t>(num_seqs + 1);
  int32_t* const places = carver.take<int32_t>(num_seqs + 1);
  int32_t* const drafting = carver.take<int32_t>(num_seqs + 1);
  int32_t* const first_drafts = carver.take<int32_t>(num_seqs + 1);
  for (int seq = threadIdx.x; seq < num_seqs; seq += kThreads) {
    first_rows[seq] = num_tokens_of(args, seq);
    places[seq] = first_rows[seq] > 0 ? 1 : 0;
    first_drafts[seq] = num_drafts_of(args, seq);
    drafting[seq] = first_drafts[seq] > 0 ? 1 : 0;
  }
  const DraftPass& pass = args.pass;
  __syncthreads();
  if (threadIdx.x == 0) {
    exclusive_sums(first_drafts, num_seqs);
    pass.state.num_drafting[0] = exclusive_sums(drafting, num_seqs);
    pass.inputs.num_seqs[0] = exclusive_sums(places, num_seqs);
    pass.inputs.cu_query_lens[places[num_seqs]] = exclusive_sums(first_rows, num_seqs);
  }
  __syncthreads();
  const auto sequence = [&](int seq) {
    return DraftSeq{seq,
                    args.slots[seq],
                    first_drafts[seq + 1] - first_drafts[seq],
                    args.cu_blocks[seq],
                    args.cu_blocks[seq + 1] - args.cu_blocks[seq],
                    first_drafts[seq]};
  };
  for (int seq = threadIdx.x; seq < num_seqs; seq += kThreads) {
    const DraftSeq s = sequence(seq);
    const int begin = first_rows[seq], count = first_rows[seq + 1] - begin;
    if (count > 0) write_sequence(pass, s, places[seq], begin, count);
    if (s.num_drafts == 0) continue;
    pass.state.drafting[drafting[seq]] = s;
    write_logit_row(pass, s, 0, drafting[seq], begin + count - 1, count);
  }
  for (int row = threadIdx.x; row < first_rows[num_seqs]; row += kThreads) {
    const int seq = last_at_most(first_rows, num_seqs, row);  // it has tokens
    const DraftSeq s = sequence(seq);
    const DeviceSlot& slot = pass.slot_table[s.slot];
    const int position = slot.draft_length + row - first_rows[seq];
    write_token(pass, s, args.block_tables, row, position, slot.history[position]);
  }
  write_padding(pass, first_rows[num_seqs], drafting[num_seqs]);
  for (int i = threadIdx.x; i < args.num_blocks; i += kThreads) pass.inputs.block_tables[i] = args.block_tables[i];
}

// One block. Sequences that want no more drafts leave no gap.
__global__ void __launch_bounds__(kThreads) advance_draft_kernel(AdvanceDraftArgs args) {
  simt::SharedCarver carver;
  const DraftPass& pass = args.pass;
  const int num_drafting = pass.state.num_drafting[0];
  int32_t* const rows = carver.take<int32_t>(args.max_drafting + 1);
  for (int i = threadIdx.x; i < num_drafting; i += kThreads)
    rows[i] = pass.state.drafting[i].num_drafts > args.index ? 1 : 0;
  __syncthreads();
  if (threadIdx.x == 0) {
    const int count = exclusive_sums(rows, num_drafting);
    pass.inputs.num_seqs[0] = count;
    pass.inputs.cu_query_lens[count] = count;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < num_drafting; i += kThreads) {
    const int row = rows[i];
    if (rows[i + 1] == row) continue;
    const DraftSeq s = pass.state.drafting[i];
    write_sequence(pass, s, row, row, 1);
    write_token(pass, s, pass.inputs.block_tables, row, pass.slot_table[s.slot].draft_length,
                pass.proposals[s.seq * kMaxPlanDrafts + args.index - 1]);
    write_logit_row(pass, s, args.index, row, row, 1);
  }
  write_padding(pass, rows[num_drafting], rows[num_drafting]);
}

__global__ void __launch_bounds__(kThreads) commit_draft_kernel(CommitDraftArgs args) {
  const DraftPass& pass = args.pass;
  const int i = blockIdx.x * kThreads + threadIdx.x;
  const int32_t* const edges = pass.inputs.cu_query_lens;
  if (i < pass.inputs.num_seqs[0]) pass.slot_table[pass.state.slots[i]].draft_length += edges[i + 1] - edges[i];
  if (i >= pass.padded_logit_rows || pass.inputs.rows[i].row < 0) return;
  const int seq = pass.inputs.rows[i].seq;
  const int32_t token = args.tokens[i];
  if (token < 0) report_fault(pass.fault, StepFault::no_number, seq);
  pass.proposals[seq * kMaxPlanDrafts + args.index] = token < 0 ? 0 : token;
}

// Bytes of an array of the SharedCarver.
size_t shared_ints(int count) { return (static_cast<size_t>(count) * 4 + 15) / 16 * 16; }

}  // namespace

void prepare_draft(const PrepareDraftArgs& args, cudaStream_t stream) {
  const size_t shared = 4 * shared_ints(args.num_seqs + 1);
  check(simt::launch(prepare_draft_kernel, {dim3(1), dim3(kThreads), shared, stream}, args),
        "preparing a pass of the draft");
}

void advance_draft(const AdvanceDraftArgs& args, cudaStream_t stream) {
  const size_t shared = shared_ints(args.max_drafting + 1);
  check(simt::launch(advance_draft_kernel, {dim3(1), dim3(kThreads), shared, stream}, args),
        "preparing a pass of the draft");
}

void commit_draft(const CommitDraftArgs& args, cudaStream_t stream) {
  const int count = args.max_seqs > args.pass.padded_logit_rows ? args.max_seqs : args.pass.padded_logit_rows;
  const simt::LaunchShape shape{dim3((count + kThreads - 1) / kThreads), dim3(kThreads), 0, stream};
  check(simt::launch(commit_draft_kernel, shape, args), "committing a pass of the draft");
}

}  // namespace nds::cuda
