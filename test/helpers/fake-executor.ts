/**
 * A deterministic toy model as an `Executor`: checks every plan as native does, and reads the KV through the block
 * tables.
 */
import { NdsError } from '../../protocol/errors.ts';
import {
  firstDraft,
  LogitRowKind,
  newestToken,
  numAdmitFloats,
  numAdmitInts,
  packPlan,
  type StepPlan,
  viewPlan,
} from '../../protocol/step-plan.ts';
import { emptyResult, type StepResult } from '../../protocol/step-result.ts';
import type { Executor } from '../../rank/engine/executor.ts';
import type { SchedulerLimits } from '../../rank/scheduler/limits.ts';
import type { TokenLogprobs } from '../../rank/scheduler/request.ts';
import { KvPool } from './kv-pool.ts';

interface Slot {
  length: number;
  newestToken: number;
  seed: string;
  numLogprobs: number;
  numPromptLogprobs: number;
  /** Whether it had drafts, after which the plan builder does not know its length. */
  hasDrafted: boolean;
  /** All tokens, for a slot that a draft model may draft for; else null. */
  history: number[] | null;
  draftLength: number;
}

/** Results of a step's rows, in plan order. */
interface Rows {
  readonly numTokens: Int32Array;
  readonly tokenIds: number[];
  readonly logits: number[];
  readonly hidden: number[];
  readonly logprobs: TokenLogprobs[];
}

export const toyHiddenSize = 3;

/** The token that follows `tokenIds`: a hash of all of them and of the seed. */
export function nextToken(tokenIds: readonly number[], seed: string, vocabSize: number): number {
  return hash(`${seed}:${tokenIds.join(',')}`) % vocabSize;
}

/** The logits after `tokenIds`. */
export function toyLogits(tokenIds: readonly number[], vocabSize: number): number[] {
  const value = hash(tokenIds.join(','));
  return Array.from({ length: vocabSize }, (_, i) => (value % 1009) + i);
}

/** The hidden state `[toyHiddenSize]` after `tokenIds`. */
export function toyHidden(tokenIds: readonly number[]): number[] {
  return toyLogits([...tokenIds, -1], toyHiddenSize);
}

/** Log-probabilities after `tokenIds`: of `tokenId`, then of the first `numLikeliest` tokens of the vocabulary. */
export function toyLogprobs(tokenIds: readonly number[], tokenId: number, numLikeliest: number, vocabSize: number): TokenLogprobs {
  const ids = [tokenId, ...Array.from({ length: Math.min(numLikeliest, vocabSize) }, (_, i) => i)];
  const value = hash(tokenIds.join(','));
  return { tokenIds: ids, logprobs: ids.map((id) => -(value % 1009) - id), rank: 1 + (value % vocabSize) };
}

/** An `EngineRequest`'s parameters as the slot stores them. */
export function seedKey(floats: ArrayLike<number>, ints: ArrayLike<number>, seeds: ArrayLike<number>): string {
  return [...Array.from(floats, Math.fround), ...Array.from(ints), ...Array.from(seeds)].join('/');
}

function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return value;
}

function expectThat(condition: boolean, what: string): void {
  if (!condition) throw new NdsError('ERR_PLAN', `Expected ${what}`);
}

/** Runs plans strictly in order, a few turns of the event loop after submission, as an executor thread would. */
export class FakeExecutor implements Executor {
  readonly plans: StepPlan[] = [];
  failure: NdsError | null = null;
  /** Called before each step runs. */
  onStep: (plan: StepPlan) => void = () => {};
  readonly #limits: SchedulerLimits;
  readonly #vocabSize: number;
  readonly #slots: (Slot | undefined)[] = [];
  readonly #kv: KvPool;
  readonly #draftKv: KvPool;
  #last: Promise<unknown> = Promise.resolve();

  constructor(limits: SchedulerLimits, vocabSize: number) {
    this.#limits = limits;
    this.#vocabSize = vocabSize;
    this.#kv = new KvPool(limits);
    this.#draftKv = new KvPool(limits);
  }

  execute(plan: StepPlan): Promise<StepResult> {
    // Packed and viewed, as on the way to native.
    const { directory, bytes } = packPlan(plan);
    const copy = viewPlan(plan.step, directory, bytes);
    const result = this.#last.then(async () => {
      await new Promise(setImmediate);
      this.onStep(copy);
      return this.#run(copy);
    });
    this.#last = result;
    return result;
  }

  fail(cause: NdsError): boolean {
    this.failure = cause;
    return false;
  }

  #run(plan: StepPlan): StepResult {
    expectThat(plan.step === this.plans.length, `step ${this.plans.length}`);
    this.plans.push(plan);
    this.#checkSizes(plan);
    this.#kv.copy(plan.blockCopies);
    this.#admit(plan);
    this.#checkTables(plan);
    const rows: Rows = { numTokens: new Int32Array(plan.slots.length), tokenIds: [], logits: [], hidden: [], logprobs: [] };
    const drafts = this.#draft(plan);
    plan.slots.forEach((slot, i) => {
      const table = tableOf(plan, i);
      const tokens = this.#store(plan, slot, i, table, drafts[i] ?? []);
      this.#computeRows(plan, i, table, tokens, rows);
    });
    const { numTokens, tokenIds, logits, hidden, logprobs } = rows;
    return {
      ...emptyResult,
      numTokens,
      tokenIds: Int32Array.from(tokenIds),
      logits: Float32Array.from(logits),
      hidden: Float32Array.from(hidden),
      logprobIds: Int32Array.from(logprobs.flatMap((row) => row.tokenIds)),
      logprobs: Float32Array.from(logprobs.flatMap((row) => row.logprobs)),
      logprobRanks: Int32Array.from(logprobs, ({ rank }) => rank),
    };
  }

  /** Several sequences may read a block; a block that is written belongs to one sequence. */
  #checkTables(plan: StepPlan): void {
    const { numBlocks, blockSize } = this.#limits;
    const users = new Map<number, number>();
    for (const block of plan.blockTables) {
      expectThat(block >= 0 && block < numBlocks, 'a block that exists');
      users.set(block, (users.get(block) ?? 0) + 1);
    }
    plan.slots.forEach((slot, i) => {
      // The actual first position written; after drafts, a plan need not know it.
      const start = this.#slots[slot]?.length ?? 0;
      const written = tableOf(plan, i).subarray(Math.floor(start / blockSize));
      expectThat(new Set(tableOf(plan, i)).size === tableOf(plan, i).length, 'a block once in a table');
      for (const block of written) expectThat(users.get(block) === 1, 'a block that is written to be in one table only');
    });
  }

  /** Drafts of the toy draft model for each sequence of a plan, which are usually right. */
  #draft(plan: StepPlan): number[][] {
    if (plan.draft === null) return [];
    const { lens, blockTables, cuBlocks } = plan.draft;
    let numRows = 0;
    const drafts = Array.from(plan.slots, (slot, i) => {
      const state = this.#slots[slot] as Slot;
      const most = lens[i] as number;
      if (most === 0) return [];
      const table = blockTables.subarray(cuBlocks[i], cuBlocks[i + 1]);
      const history = state.history as number[];
      expectThat(history !== null, 'a slot with its history for the draft model');
      const count = Math.min(most, history.length - state.draftLength);
      numRows += count;
      const take = (token: number) => this.#draftKv.write(table, state.draftLength++, token);
      for (const token of history.slice(state.draftLength, state.draftLength + count)) take(token);
      const proposed: number[] = [];
      const wanted = (plan.numDrafts[i] as number) > 0 && (plan.tokenIds[(plan.cuQueryLens[i + 1] as number) - 1] as number) <= firstDraft;
      if (wanted) expectThat(count > 0 && state.draftLength === history.length, 'a draft model that has seen all');
      while (wanted && proposed.length < (plan.numDrafts[i] as number)) {
        if (proposed.length > 0) take(proposed.at(-1) as number);
        const context = this.#draftKv.read(table, state.draftLength);
        const right = nextToken(context, state.seed, this.#vocabSize);
        proposed.push(hash(`draft:${context.join(',')}`) % 4 > 0 ? right : (right + 1) % this.#vocabSize);
      }
      return proposed;
    });
    expectThat(numRows <= this.#limits.maxNumBatchedTokens, 'a number of tokens for the draft model within the limit');
    return drafts;
  }

  /**
   * `tokens` are those of this step. The rows that sample are adjacent: one after the known tokens, then one after each
   * accepted draft.
   */
  #computeRows(plan: StepPlan, i: number, table: Int32Array, tokens: readonly number[], rows: Rows): void {
    const state = this.#slots[plan.slots[i] as number] as Slot;
    const numDrafts = plan.numDrafts[i] ?? 0;
    const firstSampled = tokens.length - 1 - numDrafts;
    let numAccepted = 0;
    let numSampled = 0;
    const begin = plan.cuQueryLens[i] as number;
    const end = plan.cuQueryLens[i + 1] as number;
    const contextOf = (token: number) => this.#kv.read(table, state.length - (end - 1 - token));
    for (const token of plan.hiddenRows) {
      if (token >= begin && token < end) rows.hidden.push(...toyHidden(contextOf(token)));
    }
    for (let row = 0; row < plan.logitRows.length; row++) {
      const token = plan.logitRows[row] as number;
      if (token < begin || token >= end) continue;
      const context = contextOf(token);
      const kind = plan.logitRowKinds[row];
      if (kind === LogitRowKind.return) rows.logits.push(...toyLogits(context, this.#vocabSize));
      if (kind === LogitRowKind.promptLogprobs) {
        const target = plan.logitRowTargets[row] as number;
        rows.logprobs.push(toyLogprobs(context, target, state.numPromptLogprobs, this.#vocabSize));
      }
      if (kind !== LogitRowKind.sample) continue;
      expectThat(token - begin === firstSampled + numSampled, 'rows to sample at the end of their sequence, without a gap');
      if (numSampled++ > numAccepted) continue;
      state.newestToken = nextToken(context, state.seed, this.#vocabSize);
      if (tokens[firstSampled + numSampled] === state.newestToken) numAccepted++;
      state.history?.push(state.newestToken);
      rows.tokenIds.push(state.newestToken);
      (rows.numTokens[i] as number)++;
      if (state.numLogprobs >= 0) rows.logprobs.push(toyLogprobs(context, state.newestToken, state.numLogprobs, this.#vocabSize));
    }
    expectThat(numDrafts === 0 || numSampled === numDrafts + 1, 'a row to sample for each draft');
    state.length -= numDrafts - numAccepted;
    state.hasDrafted ||= numDrafts > 0;
    if (numSampled > 0) state.draftLength = Math.min(state.draftLength, state.length);
  }

  #checkSizes(plan: StepPlan): void {
    const { maxNumSeqs, maxNumBatchedTokens, maxNumLogitRows } = this.#limits;
    expectThat(plan.slots.length >= 1 && plan.slots.length <= maxNumSeqs, 'a number of sequences within the limit');
    expectThat(new Set(plan.slots).size === plan.slots.length, 'each slot once');
    expectThat(plan.tokenIds.length >= 1 && plan.tokenIds.length <= maxNumBatchedTokens, 'a number of tokens within the limit');
    expectThat(plan.logitRows.length <= maxNumLogitRows, 'a number of logit rows within the limit');
    expectThat(
      plan.logitRows.every((row, i) => row < plan.tokenIds.length && (i === 0 || row > (plan.logitRows[i - 1] as number))),
      'ascending logit rows',
    );
    expectThat(plan.cuQueryLens.at(-1) === plan.tokenIds.length, 'cuQueryLens to end at the number of tokens');
  }

  #admit(plan: StepPlan): void {
    plan.admitSlots.forEach((slot, i) => {
      expectThat(slot >= 0 && slot < this.#limits.maxNumSeqs, 'a slot that exists');
      const floats = plan.admitFloats.subarray(i * numAdmitFloats, (i + 1) * numAdmitFloats);
      const ints = plan.admitInts.subarray(i * numAdmitInts, (i + 1) * numAdmitInts);
      // `mayDraft` must not change a token.
      const seed = seedKey(floats, ints.subarray(0, 6), plan.admitSeeds.subarray(i * 2, i * 2 + 2));
      const [numLogprobs = -1, numPromptLogprobs = -1, mayDraft = 0] = ints.subarray(4);
      const { values, offsets } = plan.admitLists.history;
      const history = mayDraft > 0 ? Array.from(values.subarray(offsets[i], offsets[i + 1])) : null;
      const logprobs = { numLogprobs, numPromptLogprobs };
      const fresh = { newestToken: -1, hasDrafted: false, draftLength: 0 };
      this.#slots[slot] = { length: plan.admitLens[i] as number, seed, ...logprobs, history, ...fresh };
    });
  }

  /** Writes one sequence's tokens of the step to the cache and advances its slot; returns the tokens. */
  #store(plan: StepPlan, slot: number, i: number, table: Int32Array, drafts: readonly number[]): number[] {
    const state = this.#slots[slot] as Slot;
    expectThat(state !== undefined, 'a slot that was admitted');
    const begin = plan.cuQueryLens[i] as number;
    const end = plan.cuQueryLens[i + 1] as number;
    const { blockSize, maxModelLen } = this.#limits;
    const contextLen = plan.contextLens[i] as number;
    expectThat(end > begin, 'at least one token of each sequence');
    const isRight = contextLen === state.length + end - begin || (state.hasDrafted && contextLen > state.length + end - begin);
    expectThat(isRight, 'the context length that the slot says');
    expectThat(contextLen <= maxModelLen, 'a context within maxModelLen');
    expectThat(table.length >= Math.ceil(contextLen / blockSize), 'enough blocks');
    const tokens = Array.from(plan.tokenIds.subarray(begin, end), (id, row) => {
      if (id === newestToken) expectThat(row === 0 && state.newestToken >= 0, 'a slot that holds a newest token');
      const token = id === newestToken ? state.newestToken : id <= firstDraft ? (drafts[firstDraft - id] as number) : id;
      expectThat(token >= 0 && token < this.#vocabSize, 'a token of the vocabulary');
      this.#kv.write(table, state.length++, token);
      return token;
    });
    state.newestToken = -1;
    return tokens;
  }
}

/** Block table of the plan's sequence i. */
function tableOf(plan: StepPlan, i: number): Int32Array {
  return plan.blockTables.subarray(plan.cuBlocks[i], plan.cuBlocks[i + 1]);
}
