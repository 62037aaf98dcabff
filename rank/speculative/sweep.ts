/** Plans that are run before the first request, to see what passes cost: of made-up sequences, in the first slots and blocks. */
import { noLists, toRagged } from '../../protocol/admit-lists.ts';
import { firstDraft, LogitRowKind, newestToken, numAdmitFloats, numAdmitInts, type StepPlan } from '../../protocol/step-plan.ts';
import type { SweepShape } from './step-costs.ts';

/** What plans of a sweep depend on. */
export interface SweepLimits {
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly maxModelLen: number;
  readonly maxNumBatchedTokens: number;
  readonly maxNumLogitRows: number;
  /** Null without a draft model. */
  readonly draftLimits: { readonly maxModelLen: number; readonly maxNumBatchedTokens: number } | null;
}

/** A token that every vocabulary has. */
const someToken = 0;

/** Plans of one shape: the first lets the sequences in, then come `numRepeats` alike with drafts. Null where the limits do not allow it. */
export class ShapePlans {
  readonly #shape: SweepShape;
  readonly #limits: SweepLimits;
  readonly #blocksPerSeq: number;
  /** Tokens that each sequence has at most, the newest among them. */
  #numTokens: number;

  private constructor(shape: SweepShape, limits: SweepLimits, blocksPerSeq: number) {
    this.#shape = shape;
    this.#limits = limits;
    this.#blocksPerSeq = blocksPerSeq;
    this.#numTokens = shape.catchUpTokens;
  }

  static open(shape: SweepShape, limits: SweepLimits, numRepeats: number): ShapePlans | null {
    const { numSequences, numDrafts, catchUpTokens } = shape;
    const longest = catchUpTokens + numRepeats * (numDrafts + 1);
    const blocksPerSeq = Math.ceil(longest / limits.blockSize);
    const numRows = numSequences * (numDrafts + 1);
    const { draftLimits } = limits;
    // Its first pass takes in the prompt and the token after it.
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

  /** Rows of each pass of the draft model in the `next` plan: it takes in all that it has not seen, at first the prompt. */
  get nextDraftRows(): number[] {
    const { numSequences, numDrafts, catchUpTokens } = this.#shape;
    if (this.#limits.draftLimits === null || numDrafts === 0) return [];
    const numUnseen = this.#numTokens === catchUpTokens + 1 ? this.#numTokens : 2;
    return Array.from({ length: numDrafts }, (_, i) => numSequences * (i === 0 ? numUnseen : 1));
  }

  /** Lets the sequences in: all of their tokens, then the first of their own. */
  admit(step: number): StepPlan {
    const { numSequences, catchUpTokens } = this.#shape;
    const floats = new Float32Array(numSequences * numAdmitFloats);
    const ints = new Int32Array(numSequences * numAdmitInts);
    for (let i = 0; i < numSequences; i++) {
      floats.set([0, 1, 0, 0, 0, 1], i * numAdmitFloats);
      ints.set([0, 0, catchUpTokens, 0, -1, -1, Number(this.#limits.draftLimits !== null)], i * numAdmitInts);
    }
    const tokens = new Array<number>(catchUpTokens).fill(someToken);
    const plan = this.#plan(step, tokens, 0);
    this.#numTokens = catchUpTokens + 1;
    return {
      ...plan,
      admitSlots: plan.slots,
      admitLens: new Int32Array(numSequences),
      admitFloats: floats,
      admitInts: ints,
      admitSeeds: new Uint32Array(numSequences * 2),
      admitLists: { ...noLists, history: toRagged(new Array(numSequences).fill(this.#limits.draftLimits === null ? [] : tokens)) },
    };
  }

  /** One step more, with drafts. */
  next(step: number): StepPlan {
    const { numDrafts } = this.#shape;
    const hasDraftModel = this.#limits.draftLimits !== null;
    const drafts = Array.from({ length: numDrafts }, (_, d) => (hasDraftModel ? firstDraft - d : someToken));
    const plan = this.#plan(step, [newestToken, ...drafts], numDrafts);
    this.#numTokens += numDrafts + 1;
    return plan;
  }

  #plan(step: number, tokens: readonly number[], numDrafts: number): StepPlan {
    const { numSequences } = this.#shape;
    const each = <T>(value: (i: number) => T) => Array.from({ length: numSequences }, (_, i) => value(i));
    const starts = Int32Array.from({ length: numSequences + 1 }, (_, i) => i * tokens.length);
    const blockTables = Int32Array.from({ length: numSequences * this.#blocksPerSeq }, (_, b) => b);
    const cuBlocks = Int32Array.from({ length: numSequences + 1 }, (_, i) => i * this.#blocksPerSeq);
    const rows = each((i) => Array.from({ length: numDrafts + 1 }, (_, d) => (i + 1) * tokens.length - 1 - numDrafts + d)).flat();
    const drafted = numDrafts > 0;
    return {
      step,
      slots: Int32Array.from(each((i) => i)),
      tokenIds: Int32Array.from(each(() => tokens).flat()),
      cuQueryLens: starts,
      contextLens: Int32Array.from(each(() => (tokens[0] === newestToken ? this.#numTokens - 1 : 0) + tokens.length)),
      numDrafts: drafted ? Int32Array.from(each(() => numDrafts)) : new Int32Array(0),
      draft:
        drafted && this.#limits.draftLimits !== null ? { lens: Int32Array.from(each(() => this.#numTokens)), blockTables, cuBlocks } : null,
      blockCopies: new Int32Array(0),
      blockTables,
      cuBlocks,
      logitRows: Int32Array.from(rows),
      logitRowKinds: new Int32Array(rows.length).fill(LogitRowKind.sample),
      logitRowTargets: new Int32Array(0),
      admitSlots: new Int32Array(0),
      admitLens: new Int32Array(0),
      admitFloats: new Float32Array(0),
      admitInts: new Int32Array(0),
      admitSeeds: new Uint32Array(0),
      admitLists: noLists,
    };
  }
}
