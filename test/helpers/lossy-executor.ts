/** A toy executor whose ranks are lost and started anew: each epoch is a `FakeExecutor` that knows nothing. */
import { NdsError } from '../../protocol/errors.ts';
import type { StepPlan } from '../../protocol/step-plan.ts';
import type { StepResult } from '../../protocol/step-result.ts';
import type { Engine } from '../../rank/engine/engine.ts';
import type { EngineOptions, Executor } from '../../rank/engine/executor.ts';
import { FakeExecutor } from './fake-executor.ts';

/**
 * How a step meets the loss: it fails first (`fails`), it never ends (`hangs`), it ends when its epoch is over (`late`),
 * or it has been committed (`after`).
 */
export const lossWays = ['fails', 'hangs', 'late', 'after'] as const;
export type LossWay = (typeof lossWays)[number];

const never = new Promise<never>(() => {});
const turns = async (count: number) => {
  for (let i = 0; i < count; i++) await new Promise(setImmediate);
};

export class LossyExecutor implements Executor {
  /** The engine that it serves; set before the first step. */
  engine: Engine | null = null;
  /** Called before each step that runs. */
  onStep: (plan: StepPlan) => void = () => {};
  /** Called between a loss and the resumption. */
  onLost: () => void = () => {};
  numLosses = 0;
  readonly #options: EngineOptions;
  readonly #vocabSize: number;
  /** How the next step is lost; null = it is not. */
  readonly #chooseLoss: (plan: StepPlan) => LossWay | null;
  #current: FakeExecutor;
  #isLost = false;

  constructor(options: EngineOptions, vocabSize: number, chooseLoss: (plan: StepPlan) => LossWay | null) {
    this.#options = options;
    this.#vocabSize = vocabSize;
    this.#chooseLoss = chooseLoss;
    this.#current = this.#open();
  }

  async execute(plan: StepPlan): Promise<StepResult> {
    if (this.#isLost) throw new NdsError('ERR_CLOSED', 'a plan for an epoch that is lost');
    const epoch = this.#current;
    const result = await epoch.execute(plan);
    // Of a lost epoch, no step ends but the late one.
    return epoch === this.#current || epoch.failure !== null ? result : never;
  }

  fail(cause: NdsError): boolean {
    return cause.code === 'ERR_PEER_LOST';
  }

  /** Loses the ranks, and those after them in the same turn. */
  loseTwice(): void {
    this.#current = this.#open();
    this.engine?.lose();
    this.engine?.lose();
    this.engine?.resume();
  }

  #open(): FakeExecutor {
    const epoch = new FakeExecutor(this.#options, this.#vocabSize);
    epoch.onStep = (plan) => {
      if (epoch !== this.#current) throw new NdsError('ERR_CLOSED', 'the epoch is over');
      this.onStep(plan);
      const way = this.#isLost ? null : this.#chooseLoss(plan);
      if (way === null) return;
      if (way === 'fails') {
        void this.#lose(3);
        throw new NdsError('ERR_PEER_LOST', 'a rank is gone');
      }
      // Its failure says that its result may still come.
      if (way === 'late') epoch.failure = new NdsError('ERR_PEER_LOST', 'late');
      void this.#lose(way === 'after' ? 1 : 0);
    };
    return epoch;
  }

  /** `delay`: turns of the event loop until the engine hears of it. */
  async #lose(delay: number): Promise<void> {
    if (delay > 0) await turns(delay);
    this.#isLost = true;
    this.numLosses++;
    this.#current = this.#open();
    this.engine?.lose();
    this.onLost();
    await turns(4);
    // Lost again before it was ready.
    if (this.numLosses % 5 === 0) {
      this.numLosses++;
      this.engine?.lose();
      this.onLost();
      await turns(2);
    }
    this.#isLost = false;
    this.engine?.resume();
  }
}
