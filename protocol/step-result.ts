/** The plan's twin: what one step produced, as flat typed arrays over one buffer that native wrote. */
import { NdsError } from './errors.ts';
import { type Directory, type Layout, packSections, type SectionClass, viewSections } from './sections.ts';

/** Section ids, as `native/addon/runner.cc` has them. */
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
} as const;

/** What a step produced. */
export interface StepResult {
  /** `[numSeqs]` tokens that the step added to each sequence of the plan: 0 for an unfinished prefill, else 1 and the accepted drafts. */
  readonly numTokens: Int32Array;
  /** `[sum(numTokens)]` those tokens, in the order of the plan's sequences. */
  readonly tokenIds: Int32Array;
  /** `[numReturnRows, vocabSize]` raw logits of the rows of kind `return`, in order; empty without such rows. */
  readonly logits: Float32Array;
  /**
   * Rows with log-probabilities, in order (sampled rows of slots with `numLogprobs`, and `promptLogprobs` rows): of each, the
   * token drawn or asked for, then the n likeliest, best first and of equals the lowest id. n is the slot's number, at most the
   * size of the vocabulary.
   */
  readonly logprobIds: Int32Array;
  /** `[logprobIds.length]` natural logarithms of the probabilities before any sampling parameter acts. */
  readonly logprobs: Float32Array;
  /** `[number of such rows]` place of the first token of the row among all, from 1. */
  readonly logprobRanks: Int32Array;
  /** Seconds that the executor worked on this step. */
  readonly executeSeconds: number;
  /** Seconds of those that the draft model took, before the model's own pass. */
  readonly draftSeconds: number;
  /** Seconds of `executeSeconds` that it waited for other ranks. */
  readonly waitSeconds: number;
  /** Bytes of partial sums, rows and candidates that this rank published to the others. */
  readonly exchangedBytes: number;
  /** Bytes of partial sums alone that this rank published: what the all-reduces moved. */
  readonly allReduceBytes: number;
  /** When the executor began and ended this step, in seconds on the clock of `process.hrtime`, which all processes of a host share. */
  readonly startSeconds: number;
  readonly endSeconds: number;
  /** `[4]` low and high word of the plan's hash and of the output's; equal on all ranks, or the step fails. */
  readonly hashes: Uint32Array;
  /** `[numEvents, 4]` operator of the program (-1 = the comparison of hashes), start, end, seconds of those waiting; empty unless traced. */
  readonly trace: Float64Array;
}

/** What a step produced that had nothing to do. */
export const emptyResult: StepResult = {
  numTokens: new Int32Array(0),
  tokenIds: new Int32Array(0),
  logits: new Float32Array(0),
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
]);

/**
 * Typed-array views of a result, over the same memory.
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

/** Sections that another run of the same plan need not repeat, or that hashes stand for. */
const passing: readonly number[] = [ResultSection.logits, ResultSection.stats, ResultSection.trace];

/**
 * What is the same in every run of a plan on any number of ranks: tokens, counts, log-probabilities and hashes, by section.
 * @throws NdsError `ERR_PROTOCOL` when a section is unknown or outside the buffer.
 */
export function viewLasting(directory: Directory, bytes: Uint8Array) {
  return new Map([...viewSections(directory, bytes, layout)].filter(([id]) => !passing.includes(id)));
}

/** Those sections alone, packed. */
export function packLasting(directory: Directory, bytes: Uint8Array): { directory: Directory; bytes: Uint8Array } {
  return packSections([...viewLasting(directory, bytes)]);
}
