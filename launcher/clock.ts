/** Time as the coordinator sees it; tests pass in their own. */

export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Calls `action` once, later. @returns what cancels it. */
  after(delayMs: number, action: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  after: (delayMs, action) => {
    const timer = setTimeout(action, delayMs);
    return () => clearTimeout(timer);
  },
};
