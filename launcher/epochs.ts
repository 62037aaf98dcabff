/** The epochs of a job, one after the other: what is known of the newest, how it starts, and whether another follows. */
import type { RankExit } from './agent-messages.ts';
import { type Clock, systemClock } from './clock.ts';
import { EpochFacts } from './epoch-facts.ts';
import type { Restart } from './error-report.ts';
import type { Nodes } from './nodes.ts';
import { type Decision, healthyMs, RestartPolicy } from './restart-policy.ts';
import type { Suspect } from './root-cause.ts';

export interface EpochsOptions {
  readonly runId: string;
  readonly localWorldSize: number;
  /** `[nnodes]` address that each node is reached at. */
  readonly addresses: readonly string[];
  readonly maxRestarts: number;
  readonly restartBackoffMs: number;
}

export class Epochs {
  readonly #options: EpochsOptions;
  readonly #nodes: Nodes;
  readonly #clock: Clock;
  readonly #policy: RestartPolicy;
  /** Of the newest epoch. */
  facts: EpochFacts;
  /** Whether rank 0 of the epoch before goes on in the next one, or in the newest. */
  keepsRankZero = false;
  /** Failures that a restart followed. */
  readonly restarts: Restart[] = [];
  /** Why a failure was the last, where restarts were asked for. */
  notRestarted: string | null = null;
  /** Ends in the epoch before, until its restart has started. */
  #unrecovered: readonly RankExit[] = [];
  #cancelForgiving: () => void = () => {};

  constructor(options: EpochsOptions, nodes: Nodes, clock = systemClock) {
    this.#options = options;
    this.#nodes = nodes;
    this.#clock = clock;
    this.#policy = new RestartPolicy(options);
    this.facts = new EpochFacts(0, options.localWorldSize, []);
  }

  /** Prepares an epoch on all nodes. */
  prepare(epoch: number): void {
    this.#unrecovered = this.facts.exits;
    this.facts = new EpochFacts(epoch, this.#options.localWorldSize, this.keepsRankZero ? [0] : []);
    this.#nodes.broadcast({ type: 'prepare', epoch });
  }

  /** Whether all nodes are prepared. */
  get isPrepared(): boolean {
    return this.facts.prepared.size === this.#options.addresses.length;
  }

  /** Starts the ranks of the newest epoch, rank 0 only where it does not go on. */
  start(): void {
    const { addresses, localWorldSize, runId } = this.#options;
    const { facts, keepsRankZero } = this;
    this.#unrecovered = [];
    facts.started(addresses.length * localWorldSize);
    this.#policy.started();
    this.#watchHealth();
    const publicKeys = addresses.flatMap((_, node) => facts.prepared.get(node) ?? []);
    const nodes = addresses.length > 1 ? { addresses, publicKeys } : null;
    this.#nodes.broadcast({ type: 'start', epoch: facts.epoch, runId, keepsRankZero, nodes });
  }

  /** The gang has loaded a model. */
  ready(): void {
    this.#policy.ready();
    this.#watchHealth();
  }

  /** Counts a failure. @returns the restart that is due after it; null where it is the last. */
  restartAfter(root: Suspect, cause: string): Extract<Decision, { isDue: true }> | null {
    const decision = this.#policy.decide(root);
    if (!decision.isDue) {
      this.notRestarted = decision.reason || null;
      return null;
    }
    this.suspend();
    this.keepsRankZero = root.rank !== 0 && this.facts.exitOf(0) === null;
    this.restarts.push({ rank: root.rank, cause, time: new Date(this.#clock.now()).toISOString() });
    return decision;
  }

  /** The gang is being stopped: its time no longer counts as healthy. */
  suspend(): void {
    this.#cancelForgiving();
  }

  /** Ends of the ranks of the newest epoch, and of those that it was to start anew and has not. */
  get exits(): readonly RankExit[] {
    return [...this.#unrecovered, ...this.facts.exits];
  }

  #watchHealth(): void {
    this.#cancelForgiving();
    this.#cancelForgiving = this.#clock.after(healthyMs, () => this.#policy.forgive());
  }
}
