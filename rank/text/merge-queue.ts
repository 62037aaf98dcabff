/** The candidate merges of one word, lowest rank first, then leftmost. */

/** Multiple of a rank in a key: above every position, as strings are shorter than 2^30. */
const positions = 2 ** 30;

/** A binary heap of keys `rank * 2^30 + position`, whose order is that of (rank, position). */
export class MergeQueue {
  /** Swaps so far: at most log2 of the size for each key added or taken. */
  numSwaps = 0;
  /** Keys added so far. */
  numAdded = 0;
  readonly #keys: number[] = [];

  add(rank: number, position: number): void {
    const keys = this.#keys;
    const key = rank * positions + position;
    this.numAdded++;
    let i = keys.push(key) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      const above = keys[parent] as number;
      if (above <= key) break;
      keys[i] = above;
      i = parent;
      this.numSwaps++;
    }
    keys[i] = key;
  }

  /** Removes and returns the least merge; `undefined` when there is none. */
  take(): { rank: number; position: number } | undefined {
    const keys = this.#keys;
    const least = keys[0];
    const key = keys.pop();
    if (least === undefined || key === undefined) return undefined;
    if (keys.length > 0) this.#sink(key);
    return { rank: Math.floor(least / positions), position: least % positions };
  }

  /** Places a key from the top down. */
  #sink(key: number): void {
    const keys = this.#keys;
    let i = 0;
    for (let child = 1; child < keys.length; child = 2 * i + 1) {
      if (child + 1 < keys.length && (keys[child + 1] as number) < (keys[child] as number)) child++;
      const below = keys[child] as number;
      if (below >= key) break;
      keys[i] = below;
      i = child;
      this.numSwaps++;
    }
    keys[i] = key;
  }
}
