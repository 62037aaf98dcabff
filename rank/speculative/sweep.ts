/** Plans run before the first request to measure passes: dummy sequences, in the first slots and blocks. */
import type { StepPlan } from '../../protocol/step-plan.ts';
import type { ScheduledSequence } from '../scheduler/batch.ts';
import { buildPlan } from '../scheduler/plan-builder.ts';
import { greedyParams } from '../scheduler/request.ts';
import { Sequence } from '../scheduler/sequence.ts';
import { FIRST_MEASUREMENTS } from './policy/constants.ts';
import type { PassLoad } from './policy/pass-costs.ts';

/** Runs of each shape, of whose measurements the median counts. */
export const SWEEP_REPEATS = FIRST_MEASUREMENTS;
/** Number of drafts up to which the sweep measures each number, for one sequence. */
const DENSE_DRAFTS = 8;

/** A step of the sweep: `numSequences` decoding sequences, each with `numDrafts` drafts. */
export interface SweepShape {
  readonly numSequences: number;
  readonly numDrafts: number;
  /** Tokens of each sequence that the draft has not seen when the step begins. */
  readonly catchUpTokens: number;
}

/**
 * Steps to run before the first request, in this order, `SWEEP_REPEATS` times each. With one catch-up token, a step of
 * D sequences and K drafts is a target pass of D (K + 1) rows and K draft passes of D rows, so that one list serves
 * both models. Two longer catch-ups measure a draft model's prefill.
 */
export function sweepShapes(limits: {
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  readonly numSpeculativeTokens: number;
}): readonly SweepShape[] {
  const { maxNumSeqs, maxNumBatchedTokens, numSpeculativeTokens } = limits;
  const upTo = (most: number, factor: number) => {
    const counts = [];
    for (let n = 1; n < most; n *= factor) counts.push(n);
    return [...counts, most];
  };
  const octaves = [0, ...upTo(numSpeculativeTokens, 2)];
  const dense = Array.from({ length: Math.min(DENSE_DRAFTS, numSpeculativeTokens) + 1 }, (_, k) => k);
  const draftsOf = (numSequences: number) => (numSequences === 1 ? [...new Set([...dense, ...octaves])] : octaves);
  const shapes = upTo(maxNumSeqs, 4).flatMap((numSequences) =>
    draftsOf(numSequences).map((numDrafts) => ({ numSequences, numDrafts, catchUpTokens: 1 })),
  );
  const catchUps = [32, 256].map((catchUpTokens) => ({ numSequences: 1, numDrafts: 1, catchUpTokens }));
  return [...shapes, ...catchUps].filter(
    ({ numSequences, numDrafts, catchUpTokens }) => numSequences * Math.max(numDrafts + 1, catchUpTokens) <= maxNumBatchedTokens,
  );
}

/** Limits that plans of a sweep must fit. */
export interface SweepLimits {
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly maxModelLen: number;
  readonly maxNumBatchedTokens: number;
  readonly maxNumLogitRows: number;
  /** Null without a draft model. */
  readonly draftLimits: { readonly maxModelLen: number; readonly maxNumBatchedTokens: number } | null;
}

/** A token in every vocabulary. */
const someToken = 0;

/** Plans of one shape: the first admits the sequences, `numRepeats` equal ones with drafts follow. */
export class ShapePlans {
  readonly #shape: SweepShape;
  readonly #limits: SweepLimits;
  readonly #sequences: readonly Sequence[];
  /** Max tokens of each sequence, the newest included. */
  #numTokens: number;

  private constructor(shape: SweepShape, limits: SweepLimits, blocksPerSeq: number) {
    this.#shape = shape;
    this.#limits = limits;
    this.#sequences = Array.from({ length: shape.numSequences }, (_, i) =>
      makeSequence(i, shape.catchUpTokens, limits.maxModelLen, blocksPerSeq),
    );
    this.#numTokens = shape.catchUpTokens;
  }

  /** Null where the limits do not allow the shape. */
  static open(shape: SweepShape, limits: SweepLimits, numRepeats: number): ShapePlans | null {
    const { numSequences, numDrafts, catchUpTokens } = shape;
    const longest = catchUpTokens + numRepeats * (numDrafts + 1);
    const blocksPerSeq = Math.ceil(longest / limits.blockSize);
    const numRows = numSequences * (numDrafts + 1);
    const { draftLimits } = limits;
    // The draft's first pass computes the prompt and the token after it.
    const suitsDraft =
      draftLimits === null ||
      numDrafts === 0 ||
      (longest <= draftLimits.maxModelLen && numSequences * (catchUpTokens + 1) <= draftLimits.maxNumBatchedTokens);
    const fits =
      suitsDraft &&
      longest <= limits.maxModelLen &&
      numSequences * blocksPerSeq <= limits.numBlocks &&
      numRows <= Math.min(limits.maxNumLogitRows, limits.maxNumBatchedTokens) &&
      numSequences * catchUpTokens <= limits.maxNumBatchedTokens;
    return fits ? new ShapePlans(shape, limits, blocksPerSeq) : null;
  }

  /** The target's pass of the `next` plan. */
  get nextTarget(): PassLoad {
    const { numSequences, numDrafts } = this.#shape;
    const contextTokens = numSequences * this.#numTokens;
    return { rows: numSequences * (numDrafts + 1), contextTokens, draftContextTokens: numDrafts * contextTokens };
  }

  /** The draft model's passes of the `next` plan; the first one catches up, initially on the prompt. */
  get nextDraftPasses(): PassLoad[] {
    const { numSequences, numDrafts, catchUpTokens } = this.#shape;
    if (this.#limits.draftLimits === null || numDrafts === 0) return [];
    const numUnseen = this.#numTokens === catchUpTokens + 1 ? this.#numTokens : 2;
    const load = { contextTokens: numSequences * this.#numTokens, draftContextTokens: 0 };
    return Array.from({ length: numDrafts }, (_, i) => ({ ...load, rows: numSequences * (i === 0 ? numUnseen : 1) }));
  }

  /** Admits the sequences: prefills their prompts and samples their first token. */
  admit(step: number): StepPlan {
    const { catchUpTokens } = this.#shape;
    this.#numTokens = catchUpTokens + 1;
    return this.#plan(step, { start: 0, numTokens: catchUpTokens, admits: true, fromSlot: false, drafting: null });
  }

  /** The next step, with drafts. */
  next(step: number): StepPlan {
    const { numDrafts } = this.#shape;
    const start = this.#numTokens - 1;
    const hasDraftModel = this.#limits.draftLimits !== null;
    const tokenIds = hasDraftModel ? null : new Array<number>(numDrafts).fill(someToken);
    const drafting = numDrafts === 0 ? null : { numDrafts, tokenIds, draftLen: hasDraftModel ? this.#numTokens : 0 };
    this.#numTokens += numDrafts + 1;
    return this.#plan(step, { start, numTokens: 1 + numDrafts, admits: false, fromSlot: true, drafting });
  }

  /** A plan in which all sequences have the same share. */
  #plan(step: number, share: Pick<ScheduledSequence, 'start' | 'numTokens' | 'admits' | 'fromSlot' | 'drafting'>): StepPlan {
    const { blockSize, draftLimits } = this.#limits;
    const batch = this.#sequences.map((sequence) => ({ sequence, ...share, samples: true, firstRow: share.start, copy: null }));
    return buildPlan(step, batch, { blockSize, hasDraftModel: draftLimits !== null });
  }
}

function makeSequence(slot: number, numTokens: number, maxModelLen: number, numBlocks: number): Sequence {
  const promptTokenIds = new Array<number>(numTokens).fill(someToken);
  const request = { promptTokenIds, n: 1, maxTokens: maxModelLen, eosTokenIds: [], stopTokenIds: [], priority: 0, params: greedyParams };
  const sequence = new Sequence({ type: 'generate', requestId: slot, ...request }, maxModelLen, slot);
  sequence.slot = slot;
  for (const { blockTable } of [sequence, sequence.draft]) {
    for (let b = 0; b < numBlocks; b++) blockTable.push(slot * numBlocks + b);
  }
  return sequence;
}
