/** What the coordinator knows of one epoch: who runs, who has ended how, and what they did. Pure. */
import type { RankErrorRecord } from '../protocol/failure.ts';
import type { AgentEvent, RankExit, RankOutput } from './agent-messages.ts';
import type { RankState } from './rank-state.ts';
import { hasFailed, type Suspect } from './root-cause.ts';

type Closed = Extract<AgentEvent, { type: 'closed' }>;
type Inspected = Extract<AgentEvent, { type: 'inspected' }>;

export class EpochFacts {
  readonly epoch: number;
  /** Ranks that run. */
  readonly live: Set<number>;
  /** By node: its ranks' CURVE public keys. */
  readonly prepared = new Map<number, readonly string[]>();
  readonly #localWorldSize: number;
  readonly #exits = new Map<number, RankExit>();
  readonly #errors = new Map<number, RankErrorRecord>();
  readonly #closed = new Map<number, Closed>();
  readonly #states = new Map<number, RankState>();
  /** By node: arrival by our clock minus sending by the node's, at its least, which delays only add to. */
  readonly #clockOffsets = new Map<number, number>([[0, 0]]);

  constructor(epoch: number, localWorldSize: number, live: Iterable<number>) {
    this.epoch = epoch;
    this.#localWorldSize = localWorldSize;
    this.live = new Set(live);
  }

  /** All ranks have been started. */
  started(numRanks: number): void {
    for (let rank = 0; rank < numRanks; rank++) this.live.add(rank);
  }

  nodeOf(rank: number): number {
    return Math.floor(rank / this.#localWorldSize);
  }

  exited(exit: RankExit, error: RankErrorRecord | null, arrival: number): void {
    this.#exits.set(exit.rank, exit);
    if (error !== null) this.#errors.set(error.rank, error);
    this.#compareClocks(this.nodeOf(exit.rank), exit.time, arrival);
    this.live.delete(exit.rank);
  }

  closed(event: Closed): void {
    this.#closed.set(event.rank, event);
  }

  inspected(node: number, { time, errors, states }: Inspected, arrival: number): void {
    this.#compareClocks(node, time, arrival);
    for (const error of errors) this.#errors.set(error.rank, error);
    for (const state of states) this.#states.set(state.rank, state);
  }

  /** Of a node's ranks only these run: none where it cannot be heard any more, some where it failed to start others. */
  keepOnly(node: number, running: readonly number[]): void {
    for (const rank of this.live) if (this.nodeOf(rank) === node && !running.includes(rank)) this.live.delete(rank);
  }

  /** Whether all output of the ranks that have exited is here; that of `lostNodes` never comes. */
  isClosed(lostNodes: ReadonlySet<number>): boolean {
    return [...this.#exits.keys()].every((rank) => this.#closed.has(rank) || lostNodes.has(this.nodeOf(rank)));
  }

  exitOf(rank: number): RankExit | null {
    return this.#exits.get(rank) ?? null;
  }

  /** In the order of their arrival. */
  get exits(): readonly RankExit[] {
    return [...this.#exits.values()];
  }

  errorOf(rank: number): RankErrorRecord | null {
    return this.#errors.get(rank) ?? null;
  }

  stateOf(rank: number): RankState | null {
    return this.#states.get(rank) ?? null;
  }

  outputOf(rank: number): RankOutput {
    return this.#closed.get(rank) ?? { stderrTail: [], outOfMemoryKills: null, wasKilledByLauncher: false };
  }

  /** Ranks that failed or recorded an error, with times by our clock. */
  suspects(): Suspect[] {
    const ranks = new Set([...this.#exits.keys(), ...this.#errors.keys()]);
    return [...ranks]
      .sort((a, b) => a - b)
      .map((rank) => this.suspect(rank))
      .filter(({ exit, error }) => (exit === null ? error !== null : hasFailed(exit)));
  }

  suspect(rank: number): Suspect {
    const offset = this.#clockOffsets.get(this.nodeOf(rank)) ?? 0;
    const [exit, error] = [this.exitOf(rank), this.errorOf(rank)];
    return {
      rank,
      exit: exit && { ...exit, time: exit.time + offset },
      error: error && { ...error, timestamp: error.timestamp + offset },
    };
  }

  #compareClocks(node: number, sent: number, arrival: number): void {
    if (node === 0) return;
    this.#clockOffsets.set(node, Math.min(arrival - sent, this.#clockOffsets.get(node) ?? Number.POSITIVE_INFINITY));
  }
}
