/**
 * Finds hangs: a rank is in a step or stopped by a signal, and no rank of the job makes progress for the step timeout.
 * Pure: it counts samples, not time, since a launcher that was stopped has not seen what its ranks did.
 */
import { hasMoved, newestStep, type RankState, stateText } from './rank-state.ts';

/** A job that stands still: `stalled` comes once, at half of the step timeout; `hung` at the whole. */
export interface Verdict {
  readonly kind: 'stalled' | 'hung';
  /** Ranks that hold the others up. */
  readonly culprits: readonly number[];
  /** The first of them. */
  readonly rank: number;
  /** The newest step that a rank is in; null = none, but a rank is stopped. */
  readonly step: number | null;
  /** Of all ranks, in order of rank. */
  readonly states: readonly RankState[];
  /** For an error: the step, and what the culprits do. */
  readonly message: string;
  /** For the console: what each rank does. */
  readonly lines: readonly string[];
}

/** Time between two samples: eight in a step timeout, but one every five seconds at least and every 100 ms at most. */
export function sampleMs(stepTimeoutMs: number): number {
  return Math.min(Math.max(stepTimeoutMs / 8, 100), 5000);
}

/** Judges the states of all ranks of a job, whichever launcher read them. */
export class HangJudge {
  readonly #numRanks: number;
  readonly #sampleMs: number;
  /** Number of still samples that make a hang. */
  readonly #limit: number;
  readonly #states = new Map<number, RankState>();
  /** Ranks that have been heard of since the last sample. */
  readonly #heard = new Set<number>();
  #hasMoved = true;
  #numStill = 0;
  #isStalled = false;

  constructor(numRanks: number, stepTimeoutMs: number) {
    this.#numRanks = numRanks;
    this.#sampleMs = sampleMs(stepTimeoutMs);
    this.#limit = Math.max(2, Math.ceil(stepTimeoutMs / this.#sampleMs));
  }

  /** Forgets everything: other ranks were started. */
  reset(): void {
    this.#states.clear();
    this.#restart();
  }

  /**
   * Takes the states of some ranks, such as those of one node. They make a sample once every rank of the job has been
   * heard of since the last one: a node that is not heard of is lost, which others find, and hangs nobody.
   */
  take(states: readonly RankState[]): Verdict | null {
    for (const state of states) {
      const before = this.#states.get(state.rank);
      if (before === undefined || hasMoved(before, state)) this.#hasMoved = true;
      this.#states.set(state.rank, state);
      this.#heard.add(state.rank);
    }
    return this.#heard.size < this.#numRanks ? null : this.#sample();
  }

  #sample(): Verdict | null {
    const states = [...this.#states.values()].sort((a, b) => a.rank - b.rank);
    const step = newestStep(states);
    if (this.#hasMoved || (step === null && !states.some(({ isStopped }) => isStopped))) {
      this.#restart();
      this.#hasMoved = false;
      return null;
    }
    this.#heard.clear();
    this.#numStill++;
    const kind = this.#numStill >= this.#limit ? 'hung' : 'stalled';
    if (kind === 'stalled' && (this.#isStalled || this.#numStill < this.#limit / 2)) return null;
    this.#isStalled = true;
    return describe(kind, states, step, this.#numStill * this.#sampleMs);
  }

  #restart(): void {
    this.#heard.clear();
    this.#hasMoved = true;
    this.#numStill = 0;
    this.#isStalled = false;
  }
}

function describe(kind: Verdict['kind'], states: readonly RankState[], step: number | null, stillMs: number): Verdict {
  const culprits = step === null ? states.filter(({ isStopped }) => isStopped).map(({ rank }) => rank) : findCulprits(states, step);
  const [rank = 0] = culprits;
  const texts = new Map(states.map((state) => [state.rank, stateText(state, step)]));
  const seconds = `${stillMs / 1000} s`;
  const holding = culprits.map((culprit) => texts.get(culprit)).join('; ');
  return {
    kind,
    culprits,
    rank,
    step,
    states,
    message: `Expected progress${step === null ? '' : ` in step ${step}`} but received none for ${seconds}: ${holding}`,
    lines: [`no rank has made progress for ${seconds}`, ...[...texts.values()].map((text) => `  ${text}`)],
  };
}

/**
 * The ranks that hold a step up: those that wait for nobody, and that others wait for, that are in a step, or that have
 * not begun it; those that are stopped come first. Where all wait for each other, all that wait.
 */
export function findCulprits(states: readonly RankState[], step: number): number[] {
  const isWaiting = ({ waitsIn, isStopped }: RankState): boolean => waitsIn !== null && !isStopped;
  const awaited = new Set(states.filter(isWaiting).map(({ waitsFor }) => waitsFor));
  const holdsUp = (state: RankState): boolean =>
    !isWaiting(state) && (awaited.has(state.rank) || state.phase === 'step' || state.isStopped || (state.step ?? -1) < step);
  const holding = states.filter(holdsUp);
  // What another does may be for want of a stopped one, though it does not say that it waits.
  holding.sort((a, b) => Number(b.isStopped) - Number(a.isStopped));
  return (holding.length > 0 ? holding : states.filter(isWaiting)).map(({ rank }) => rank);
}
