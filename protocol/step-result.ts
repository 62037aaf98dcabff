/** The result of one step: flat typed arrays over one buffer, written by native. */
import { NdsError } from './errors.ts';
import { type Directory, type Layout, packSections, type SectionClass, viewSections } from './sections.ts';

/** Section ids, as in `native/addon/runner.cc`. */
export const ResultSection = {
  numTokens: 1,
  tokenIds: 2,
  logits: 3,
  stats: 4,
  logprobIds: 5,
  logprobs: 6,
  logprobRanks: 7,
  trace: 8,
  hashes: 9,
  hidden: 10,
} as const;

/** Output of a step. */
export interface StepResult {
  /** `[numSeqs]` tokens added to each sequence: 0 for an unfinished prefill, else 1 + accepted drafts. */
  readonly numTokens: Int32Array;
  /** `[sum(numTokens)]` those tokens, in plan order. */
  readonly tokenIds: Int32Array;
  /** `[numReturnRows, vocabSize]` raw logits of the `return` rows, in order; empty without such rows. */
  readonly logits: Float32Array;
  /** `[numHiddenRows, hiddenSize]` hidden states after the final norm, in fp32; empty without such rows. */
  readonly hidden: Float32Array;
  /**
   * Ragged, per row with log-probabilities (sampled rows of slots with `numLogprobs`, and `promptLogprobs` rows): the
   * drawn or target token, then the top n, likeliest first, ties by lowest id. n is the slot's number, at most
   * `sampleVocabSize`.
   */
  readonly logprobIds: Int32Array;
  /** `[logprobIds.length]` natural log-probabilities, before any sampling parameter is applied. */
  readonly logprobs: Float32Array;
  /** `[numLogprobRows]` rank of each row's first token among all tokens, from 1. */
  readonly logprobRanks: Int32Array;
  /** Seconds that the executor ran this step. */
  readonly executeSeconds: number;
  /** Seconds of `executeSeconds` in the draft model, before the target's pass. */
  readonly draftSeconds: number;
  /** Seconds of `executeSeconds` spent waiting for other ranks. */
  readonly waitSeconds: number;
  /** Bytes of partial sums, rows and candidates that this rank published to the others. */
  readonly exchangedBytes: number;
  /** Bytes of partial sums alone that this rank published, in all-reduces. */
  readonly allReduceBytes: number;
  /** Start and end of this step, in seconds on the clock of `process.hrtime`, shared by all processes of a host. */
  readonly startSeconds: number;
  readonly endSeconds: number;
  /** `[4]` low and high word of the plan's and the output's hash; the step fails unless they are equal on all ranks. */
  readonly hashes: Uint32Array;
  /** `[numEvents, 4]` operator (-1 = the comparison of hashes), start, end, seconds waited; empty unless traced. */
  readonly trace: Float64Array;
}

/** The result of an empty step. */
export const emptyResult: StepResult = {
  numTokens: new Int32Array(0),
  tokenIds: new Int32Array(0),
  logits: new Float32Array(0),
  hidden: new Float32Array(0),
  logprobIds: new Int32Array(0),
  logprobs: new Float32Array(0),
  logprobRanks: new Int32Array(0),
  executeSeconds: 0,
  draftSeconds: 0,
  waitSeconds: 0,
  exchangedBytes: 0,
  allReduceBytes: 0,
  startSeconds: 0,
  endSeconds: 0,
  hashes: new Uint32Array(4),
  trace: new Float64Array(0),
};

const layout: Layout = new Map<number, SectionClass>([
  [ResultSection.numTokens, Int32Array],
  [ResultSection.tokenIds, Int32Array],
  [ResultSection.logits, Float32Array],
  [ResultSection.stats, Float64Array],
  [ResultSection.logprobIds, Int32Array],
  [ResultSection.logprobs, Float32Array],
  [ResultSection.logprobRanks, Int32Array],
  [ResultSection.trace, Float64Array],
  [ResultSection.hashes, Uint32Array],
  [ResultSection.hidden, Float32Array],
]);

/**
 * Zero-copy views of a result.
 * @throws NdsError `ERR_PROTOCOL` when a section is unknown, missing or outside the buffer.
 */
export function viewResult(directory: Directory, bytes: Uint8Array): StepResult {
  const views = viewSections(directory, bytes, layout);
  const numTokens = views.get(ResultSection.numTokens);
  const tokenIds = views.get(ResultSection.tokenIds);
  const stats = views.get(ResultSection.stats);
  const hashes = views.get(ResultSection.hashes);
  if (numTokens === undefined || tokenIds === undefined || stats?.length !== 7 || hashes?.length !== 4) {
    throw new NdsError('ERR_PROTOCOL', 'Expected a result with numTokens, tokenIds, seven stats and two hashes');
  }
  return {
    numTokens: numTokens as Int32Array,
    tokenIds: tokenIds as Int32Array,
    logits: (views.get(ResultSection.logits) ?? new Float32Array(0)) as Float32Array,
    hidden: (views.get(ResultSection.hidden) ?? new Float32Array(0)) as Float32Array,
    logprobIds: (views.get(ResultSection.logprobIds) ?? new Int32Array(0)) as Int32Array,
    logprobs: (views.get(ResultSection.logprobs) ?? new Float32Array(0)) as Float32Array,
    logprobRanks: (views.get(ResultSection.logprobRanks) ?? new Int32Array(0)) as Int32Array,
    executeSeconds: stats[0] as number,
    waitSeconds: stats[1] as number,
    exchangedBytes: stats[2] as number,
    allReduceBytes: stats[3] as number,
    startSeconds: stats[4] as number,
    endSeconds: stats[5] as number,
    draftSeconds: stats[6] as number,
    hashes: hashes as Uint32Array,
    trace: (views.get(ResultSection.trace) ?? new Float64Array(0)) as Float64Array,
  };
}

/** Sections that may differ between runs of a plan, or that hashes cover. */
const passing: readonly number[] = [ResultSection.logits, ResultSection.hidden, ResultSection.stats, ResultSection.trace];

/**
 * The reproducible sections of a result, equal in every run on any number of ranks: tokens, counts, log-probabilities
 * and hashes.
 * @throws NdsError `ERR_PROTOCOL` when a section is unknown or outside the buffer.
 */
export function viewLasting(directory: Directory, bytes: Uint8Array) {
  return new Map([...viewSections(directory, bytes, layout)].filter(([id]) => !passing.includes(id)));
}

/** Packs the reproducible sections. */
export function packLasting(directory: Directory, bytes: Uint8Array): { directory: Directory; bytes: Uint8Array } {
  return packSections([...viewLasting(directory, bytes)]);
}
