/** Who has come to a job and who is missing. Pure: node 0 keeps one. */
import { NdsError } from '../../protocol/errors.ts';
import { commonIsa, differences, type Hello, nameOf } from './hello.ts';

/** Whether a node may stay. `refused` = it alone has to go; `failed` = the job cannot be. */
export type Verdict = 'waits' | 'complete' | { readonly refused: NdsError } | { readonly failed: NdsError };

/** `Key` stands for a node that has come, such as its connection. */
export class Meeting<Key> {
  readonly #nnodes: number;
  readonly #self: Hello;
  readonly #guests = new Map<Key, Hello>();
  #isComplete = false;

  /** @param self - node 0's own greeting */
  constructor(self: Hello, nnodes: number) {
    this.#self = self;
    this.#nnodes = nnodes;
  }

  get guests(): readonly Key[] {
    return [...this.#guests.keys()];
  }

  join(key: Key, hello: Hello): Verdict {
    // Of another job, which may have the same token and port.
    if (hello.runId !== this.#self.runId) {
      const names = `${this.#self.runId ?? 'none'} on ${nameOf(this.#self)}, ${hello.runId ?? 'none'} on ${nameOf(hello)}`;
      return { refused: mismatch(`one --rdzv-id but received ${names}`) };
    }
    const error = this.#objection(hello);
    if (error !== null) return this.#isComplete ? { refused: error } : { failed: error };
    this.#guests.set(key, hello);
    this.#isComplete = this.#guests.size === this.#nnodes - 1;
    return this.#isComplete ? 'complete' : 'waits';
  }

  /** A node has gone before the meeting was complete. */
  leave(key: Key): void {
    this.#guests.delete(key);
  }

  /** The indices that nobody has come for, in words. */
  get missing(): string {
    const ranks = new Set([...this.#guests.values()].map(({ nodeRank }) => nodeRank));
    const free = Array.from({ length: this.#nnodes - 1 }, (_, index) => index + 1).filter((rank) => !ranks.has(rank));
    const numMissing = this.#nnodes - 1 - this.#guests.size;
    if (free.length > numMissing) return `${numMissing} of ${this.#nnodes} nodes`;
    return `node${free.length === 1 ? '' : 's'} ${free.join(' and ')}`;
  }

  /** `[nnodes]` once complete: null is node 0; a node without an index gets the first free one, in order of arrival. */
  get seats(): readonly { readonly key: Key | null; readonly hello: Hello }[] {
    const seats: { key: Key | null; hello: Hello }[] = [{ key: null, hello: this.#self }];
    for (const [key, hello] of this.#guests) if (hello.nodeRank !== null) seats[hello.nodeRank] = { key, hello };
    for (const [key, hello] of this.#guests) {
      if (hello.nodeRank !== null) continue;
      let rank = 1;
      while (seats[rank] !== undefined) rank++;
      seats[rank] = { key, hello: { ...hello, nodeRank: rank } };
    }
    return seats;
  }

  #objection(hello: Hello): NdsError | null {
    const found = differences(this.#self, hello);
    if (found.length > 0) return mismatch(`nodes that agree but received ${found.join('; ')}`);
    const all = [this.#self, ...this.#guests.values()];
    if (commonIsa([...all, hello]) === undefined) {
      const sets = [...all, hello].map((one) => `${one.isas.join(' ')} on ${nameOf(one)}`);
      return mismatch(`an instruction set that all nodes have but received ${sets.join(', ')}`);
    }
    const twin = all.find(({ nodeRank }) => nodeRank !== null && nodeRank === hello.nodeRank);
    if (twin !== undefined) {
      return mismatch(`one node ${hello.nodeRank} but received two, on ${placeOf(twin)} and ${placeOf(hello)}`);
    }
    if (hello.nodeRank !== null && hello.nodeRank >= this.#nnodes) {
      return mismatch(`a node rank below ${this.#nnodes} but received ${hello.nodeRank} on ${placeOf(hello)}`);
    }
    if (this.#guests.size >= this.#nnodes - 1) return mismatch(`${this.#nnodes} nodes but received one more, on ${placeOf(hello)}`);
    return null;
  }
}

function placeOf({ host, address }: Hello): string {
  return `${host.slice(0, 80)} (${address.slice(0, 80)})`;
}

function mismatch(message: string): NdsError {
  return new NdsError('ERR_MISMATCH', `Expected ${message}`);
}
