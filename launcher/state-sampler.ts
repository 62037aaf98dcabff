/** Reads the states of this node's ranks at regular intervals. */
import type { RankState } from './rank-state.ts';
import { HangJudge, sampleMs, type Verdict } from './watchdog.ts';

/** Calls `onStates` with what `read` returns, every `sampleMs`, until it is stopped. */
export class StateSampler {
  readonly #timer: NodeJS.Timeout;

  constructor(stepTimeoutMs: number, read: () => RankState[], onStates: (states: RankState[]) => void) {
    this.#timer = setInterval(() => onStates(read()), sampleMs(stepTimeoutMs)).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

/** The watchdog of a job on one node: `onVerdict` is called with a stall, and with a hang, after which it has ended. */
export function watchRanks(
  numRanks: number,
  stepTimeoutMs: number,
  read: () => RankState[],
  onVerdict: (verdict: Verdict) => void,
): StateSampler {
  const judge = new HangJudge(numRanks, stepTimeoutMs);
  const sampler = new StateSampler(stepTimeoutMs, read, (states) => {
    const verdict = judge.take(states);
    if (verdict?.kind === 'hung') sampler.stop();
    if (verdict !== null) onVerdict(verdict);
  });
  return sampler;
}
