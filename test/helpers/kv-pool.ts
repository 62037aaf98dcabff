/** The toy model's KV cache, which checks that an entry belongs to the text that reads it. */
import { NdsError } from '../../protocol/errors.ts';
import type { SchedulerLimits } from '../../rank/scheduler/limits.ts';

/** The KV of one token. Like real KV it depends on all tokens before it. */
interface Entry {
  readonly token: number;
  readonly position: number;
  readonly chain: string;
}

export class KvPool {
  readonly #limits: Pick<SchedulerLimits, 'numBlocks' | 'blockSize'>;
  /** `[numBlocks * blockSize]` */
  readonly #entries: Entry[] = [];

  constructor(limits: Pick<SchedulerLimits, 'numBlocks' | 'blockSize'>) {
    this.#limits = limits;
  }

  /** Copies whole blocks, `[source, destination]` pairs. */
  copy(copies: Int32Array): void {
    const { blockSize, numBlocks } = this.#limits;
    for (let i = 0; i < copies.length; i += 2) {
      const [source, destination] = copies.subarray(i, i + 2) as unknown as [number, number];
      expectThat(
        [source, destination].every((block) => block >= 0 && block < numBlocks),
        'blocks to copy that exist',
      );
      expectThat(source !== destination, 'a block to copy to that is another');
      for (let k = 0; k < blockSize; k++) {
        const entry = this.#entries[source * blockSize + k];
        if (entry === undefined) delete this.#entries[destination * blockSize + k];
        else this.#entries[destination * blockSize + k] = entry;
      }
    }
  }

  /** Writes a token at its position in a block table. */
  write(table: Int32Array, position: number, token: number): void {
    this.#entries[this.#place(table, position)] = { token, position, chain: `${this.#chainBefore(table, position)},${token}` };
  }

  /** The first `numTokens` tokens of a sequence, read from the cache. */
  read(table: Int32Array, numTokens: number): number[] {
    return Array.from({ length: numTokens }, (_, position) => {
      const entry = this.#entries[this.#place(table, position)];
      expectThat(entry?.position === position, `position ${position} in the cache`);
      const { token, chain } = entry as Entry;
      expectThat(chain === `${this.#chainBefore(table, position)},${token}`, `position ${position} of this very text`);
      return token;
    });
  }

  #chainBefore(table: Int32Array, position: number): string {
    return position === 0 ? '' : (this.#entries[this.#place(table, position - 1)]?.chain ?? '?');
  }

  #place(table: Int32Array, position: number): number {
    const { blockSize } = this.#limits;
    expectThat(position < table.length * blockSize, `a block for position ${position}`);
    return (table[Math.floor(position / blockSize)] as number) * blockSize + (position % blockSize);
  }
}

function expectThat(condition: boolean, what: string): void {
  if (!condition) throw new NdsError('ERR_PLAN', `Expected ${what}`);
}
