/** Reads the states of this node's ranks at regular intervals. */
import type { RankState } from './rank-state.ts';
import { sampleMs } from './watchdog.ts';

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
