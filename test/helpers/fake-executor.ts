/** A deterministic toy model behind the executor's interface: checks every plan as native does and reads the KV through the block tables. */
import { NdsError } from '../../protocol/errors.ts';
import { LogitRowKind, packPlan, type StepPlan, viewPlan } from '../../protocol/step-plan.ts';
import type { StepResult } from '../../protocol/step-result.ts';
import type { Executor } from '../../rank/engine.ts';
import type { SchedulerLimits } from '../../rank/scheduler.ts';

/** Timings and hashes of a step that nobody measured. */
export const noStats = {
  executeSeconds: 0,
  waitSeconds: 0,
  exchangedBytes: 0,
  allReduceBytes: 0,
  startSeconds: 0,
  endSeconds: 0,
  hashes: new Uint32Array(4),
  trace: new Float64Array(0),
} as const;

interface Slot {
  length: number;
  newestToken: number;
  seed: string;
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
  readonly #kv: { token: number; position: number }[] = [];
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
    this.#admit(plan);
    const numTokens = new Int32Array(plan.slots.length);
    const tokenIds: number[] = [];
    const logits: number[] = [];
    const usedBlocks = new Set<number>();
    plan.slots.forEach((slot, i) => {
      const begin = plan.cuQueryLens[i] as number;
      const end = plan.cuQueryLens[i + 1] as number;
      const table = (plan.blockTables[0] as Int32Array).subarray(plan.cuBlocks[0]?.[i], plan.cuBlocks[0]?.[i + 1]);
      for (const block of table) {
        expectThat(block >= 0 && block < this.#limits.numBlocks, 'a block that exists');
        expectThat(!usedBlocks.has(block), 'a block in one table of a step only');
        usedBlocks.add(block);
      }
      const state = this.#store(plan, slot, i, table);
      for (let row = 0; row < plan.logitRows.length; row++) {
        const token = plan.logitRows[row] as number;
        if (token < begin || token >= end) continue;
        const context = this.#read(table, state.length - (end - 1 - token));
        if (plan.logitRowKinds[row] === LogitRowKind.return) {
          logits.push(...toyLogits(context, this.#vocabSize));
          continue;
        }
        expectThat(token === end - 1, 'the row to sample to be the last of its sequence');
        state.newestToken = nextToken(context, state.seed, this.#vocabSize);
        tokenIds.push(state.newestToken);
        numTokens[i] = 1;
      }
    });
    return { ...noStats, numTokens, tokenIds: Int32Array.from(tokenIds), logits: Float32Array.from(logits) };
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
      const floats = plan.admitFloats.subarray(i * 3, i * 3 + 3);
      const ints = plan.admitInts.subarray(i * 2, i * 2 + 2);
      const seed = seedKey(floats, ints, plan.admitSeeds.subarray(i * 2, i * 2 + 2));
      this.#slots[slot] = { length: plan.admitLens[i] as number, newestToken: -1, seed };
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
      this.#kv[this.#place(table, position)] = { token, position };
    }
    state.newestToken = -1;
    return state;
  }

  /** The first `numTokens` tokens of a sequence, as the cache has them. */
  #read(table: Int32Array, numTokens: number): number[] {
    return Array.from({ length: numTokens }, (_, position) => {
      const entry = this.#kv[this.#place(table, position)];
      expectThat(entry?.position === position, `position ${position} in the cache`);
      return (entry as { token: number }).token;
    });
  }

  #place(table: Int32Array, position: number): number {
    const { blockSize } = this.#limits;
    return (table[Math.floor(position / blockSize)] as number) * blockSize + (position % blockSize);
  }
}
