// Rounds of drafts: what an accept rule judges, and its results on the step.
#include "cuda/check.h"
#include "cuda/draft.h"
#include "cuda/kernels/fault.h"

namespace nds::cuda {
namespace {

constexpr int kThreads = 256;

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
