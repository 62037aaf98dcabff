/** A deterministic toy model behind the executor's interface: checks every plan as native does and reads the KV through the block tables. */
import { NdsError } from '../../protocol/errors.ts';
import { LogitRowKind, numAdmitFloats, numAdmitInts, packPlan, type StepPlan, viewPlan } from '../../protocol/step-plan.ts';
import { emptyResult, type StepResult } from '../../protocol/step-result.ts';
import type { Executor } from '../../rank/engine.ts';
import type { TokenLogprobs } from '../../rank/engine-messages.ts';
import type { SchedulerLimits } from '../../rank/scheduler-limits.ts';

interface Slot {
  length: number;
  newestToken: number;
  seed: string;
  numLogprobs: number;
  numPromptLogprobs: number;
}

/** What the cache holds of one token: real KV depends on all tokens before it, so this does too. */
interface Entry {
  readonly token: number;
  readonly position: number;
  readonly chain: number;
}

/** What the rows of a step give, in the order of the plan. */
interface Rows {
  readonly numTokens: Int32Array;
  readonly tokenIds: number[];
  readonly logits: number[];
  readonly logprobs: TokenLogprobs[];
}

/** The token that follows `tokenIds`: a hash of all of them and of the seed. */
export function nextToken(tokenIds: readonly number[], seed: string, vocabSize: number): number {
  return hash(`${seed}:${tokenIds.join(',')}`) % vocabSize;
}

/** The logits after `tokenIds`. */
export function toyLogits(tokenIds: readonly number[], vocabSize: number): number[] {
  const value = hash(tokenIds.join(','));
  return Array.from({ length: vocabSize }, (_, i) => (value % 1009) + i);
}

/** Log-probabilities after `tokenIds`: of `tokenId`, then of the first `numLikeliest` tokens of the vocabulary. */
export function toyLogprobs(tokenIds: readonly number[], tokenId: number, numLikeliest: number, vocabSize: number): TokenLogprobs {
  const ids = [tokenId, ...Array.from({ length: Math.min(numLikeliest, vocabSize) }, (_, i) => i)];
  const value = hash(tokenIds.join(','));
  return { tokenIds: ids, logprobs: ids.map((id) => -(value % 1009) - id), rank: 1 + (value % vocabSize) };
}

/** What an `EngineRequest`'s parameters look like from the slot that holds them. */
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

/** Runs plans strictly in order, some turns of the event loop after they were given, as an executor thread would. */
export class FakeExecutor implements Executor {
  readonly plans: StepPlan[] = [];
  failure: NdsError | null = null;
  /** Called before each step runs. */
  onStep: (plan: StepPlan) => void = () => {};
  readonly #limits: SchedulerLimits;
  readonly #vocabSize: number;
  readonly #slots: (Slot | undefined)[] = [];
  /** `[numBlocks * blockSize]` the token whose KV each place holds. */
  readonly #kv: Entry[] = [];
  #last: Promise<unknown> = Promise.resolve();

  constructor(limits: SchedulerLimits, vocabSize: number) {
    this.#limits = limits;
    this.#vocabSize = vocabSize;
  }

  execute(plan: StepPlan): Promise<StepResult> {
    // Through the bytes, as on the way to native.
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

  fail(cause: NdsError): void {
    this.failure = cause;
  }

  #run(plan: StepPlan): StepResult {
    expectThat(plan.step === this.plans.length, `step ${this.plans.length}`);
    this.plans.push(plan);
    this.#checkSizes(plan);
    this.#copyBlocks(plan.blockCopies);
    this.#admit(plan);
    this.#checkTables(plan);
    const rows: Rows = { numTokens: new Int32Array(plan.slots.length), tokenIds: [], logits: [], logprobs: [] };
    plan.slots.forEach((slot, i) => {
      const table = tableOf(plan, i);
      this.#computeRows(plan, i, table, this.#store(plan, slot, i, table), rows);
    });
    const { numTokens, tokenIds, logits, logprobs } = rows;
    return {
      ...emptyResult,
      numTokens,
      tokenIds: Int32Array.from(tokenIds),
      logits: Float32Array.from(logits),
      logprobIds: Int32Array.from(logprobs.flatMap((row) => row.tokenIds)),
      logprobs: Float32Array.from(logprobs.flatMap((row) => row.logprobs)),
      logprobRanks: Int32Array.from(logprobs, ({ rank }) => rank),
    };
  }

  /** Several sequences may read a block; what one of them writes is nobody else's. */
  #checkTables(plan: StepPlan): void {
    const { numBlocks, blockSize } = this.#limits;
    const users = new Map<number, number>();
    for (const block of plan.blockTables[0] as Int32Array) {
      expectThat(block >= 0 && block < numBlocks, 'a block that exists');
      users.set(block, (users.get(block) ?? 0) + 1);
    }
    plan.slots.forEach((_, i) => {
      const end = plan.contextLens[i] as number;
      const start = end - ((plan.cuQueryLens[i + 1] as number) - (plan.cuQueryLens[i] as number));
      const written = tableOf(plan, i).subarray(Math.floor(start / blockSize));
      expectThat(new Set(tableOf(plan, i)).size === tableOf(plan, i).length, 'a block once in a table');
      for (const block of written) expectThat(users.get(block) === 1, 'a block that is written to be in one table only');
    });
  }

  #computeRows(plan: StepPlan, i: number, table: Int32Array, state: Slot, rows: Rows): void {
    const begin = plan.cuQueryLens[i] as number;
    const end = plan.cuQueryLens[i + 1] as number;
    for (let row = 0; row < plan.logitRows.length; row++) {
      const token = plan.logitRows[row] as number;
      if (token < begin || token >= end) continue;
      const context = this.#read(table, state.length - (end - 1 - token));
      const kind = plan.logitRowKinds[row];
      if (kind === LogitRowKind.return) rows.logits.push(...toyLogits(context, this.#vocabSize));
      if (kind === LogitRowKind.promptLogprobs) {
        const target = plan.logitRowTargets[row] as number;
        rows.logprobs.push(toyLogprobs(context, target, state.numPromptLogprobs, this.#vocabSize));
      }
      if (kind !== LogitRowKind.sample) continue;
      expectThat(token === end - 1, 'the row to sample to be the last of its sequence');
      state.newestToken = nextToken(context, state.seed, this.#vocabSize);
      rows.tokenIds.push(state.newestToken);
      rows.numTokens[i] = 1;
      if (state.numLogprobs >= 0) rows.logprobs.push(toyLogprobs(context, state.newestToken, state.numLogprobs, this.#vocabSize));
    }
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

  /** Copy-on-write. */
  #copyBlocks(copies: Int32Array): void {
    const { blockSize, numBlocks } = this.#limits;
    for (let i = 0; i < copies.length; i += 2) {
      const [source, destination] = copies.subarray(i, i + 2) as unknown as [number, number];
      expectThat(
        [source, destination].every((block) => block >= 0 && block < numBlocks),
        'blocks to copy that exist',
      );
      expectThat(source !== destination, 'a block to copy to that is another');
      for (let k = 0; k < blockSize; k++) {
        const entry = this.#kv[source * blockSize + k];
        if (entry === undefined) delete this.#kv[destination * blockSize + k];
        else this.#kv[destination * blockSize + k] = entry;
      }
    }
  }

  #admit(plan: StepPlan): void {
    plan.admitSlots.forEach((slot, i) => {
      expectThat(slot >= 0 && slot < this.#limits.maxNumSeqs, 'a slot that exists');
      const floats = plan.admitFloats.subarray(i * numAdmitFloats, (i + 1) * numAdmitFloats);
      const ints = plan.admitInts.subarray(i * numAdmitInts, (i + 1) * numAdmitInts);
      const seed = seedKey(floats, ints, plan.admitSeeds.subarray(i * 2, i * 2 + 2));
      const [numLogprobs = -1, numPromptLogprobs = -1] = ints.subarray(4);
      this.#slots[slot] = { length: plan.admitLens[i] as number, newestToken: -1, seed, numLogprobs, numPromptLogprobs };
    });
  }

  /** Writes the step's tokens of one sequence to their places; returns its slot, moved on. */
  #store(plan: StepPlan, slot: number, i: number, table: Int32Array): Slot {
    const state = this.#slots[slot] as Slot;
    expectThat(state !== undefined, 'a slot that was admitted');
    const begin = plan.cuQueryLens[i] as number;
    const end = plan.cuQueryLens[i + 1] as number;
    const { blockSize, maxModelLen } = this.#limits;
    expectThat(end > begin, 'at least one token of each sequence');
    expectThat(plan.contextLens[i] === state.length + end - begin, 'the context length that the slot says');
    expectThat((plan.contextLens[i] as number) <= maxModelLen, 'a context within maxModelLen');
    expectThat(table.length >= Math.ceil((plan.contextLens[i] as number) / blockSize), 'enough blocks');
    for (let row = begin; row < end; row++) {
      let token = plan.tokenIds[row] as number;
      if (token === -1) {
        expectThat(row === begin && state.newestToken >= 0, 'a slot that holds a newest token');
        token = state.newestToken;
      }
      expectThat(token >= 0 && token < this.#vocabSize, 'a token of the vocabulary');
      const position = state.length++;
      this.#kv[this.#place(table, position)] = { token, position, chain: hash(`${this.#chainBefore(table, position)}:${token}`) };
    }
    state.newestToken = -1;
    return state;
  }

  #chainBefore(table: Int32Array, position: number): number {
    return position === 0 ? 0 : (this.#kv[this.#place(table, position - 1)]?.chain ?? -1);
  }

  /** The first `numTokens` tokens of a sequence, as the cache has them. */
  #read(table: Int32Array, numTokens: number): number[] {
    return Array.from({ length: numTokens }, (_, position) => {
      const entry = this.#kv[this.#place(table, position)];
      expectThat(entry?.position === position, `position ${position} in the cache`);
      const { token, chain } = entry as Entry;
      expectThat(chain === hash(`${this.#chainBefore(table, position)}:${token}`), `position ${position} of this very text`);
      return token;
    });
  }

  #place(table: Int32Array, position: number): number {
    const { blockSize } = this.#limits;
    return (table[Math.floor(position / blockSize)] as number) * blockSize + (position % blockSize);
  }
}

/** Blocks of the plan's sequence i. */
function tableOf(plan: StepPlan, i: number): Int32Array {
  return (plan.blockTables[0] as Int32Array).subarray(plan.cuBlocks[0]?.[i], plan.cuBlocks[0]?.[i + 1]);
}
