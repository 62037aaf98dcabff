/** Which KV blocks are free and which sequence holds which: pure accounting, no memory. */
import { NdsError } from '../protocol/errors.ts';
import type { KvLog } from './kv-log.ts';
import type { Sequence } from './sequence.ts';

/** Hands out the physical blocks `0 … numBlocks - 1` of `blockSize` tokens each. */
export class BlockManager {
  readonly numBlocks: number;
  readonly blockSize: number;
  /** Last in, first out: a block that was just in use is likely still in the processor's cache. */
  readonly #freeBlocks: number[];

  readonly #log: KvLog | null;

  constructor(numBlocks: number, blockSize: number, log: KvLog | null = null) {
    this.#log = log;
    this.numBlocks = numBlocks;
    this.blockSize = blockSize;
    this.#freeBlocks = Array.from({ length: numBlocks }, (_, i) => numBlocks - 1 - i);
  }

  get numFreeBlocks(): number {
    return this.#freeBlocks.length;
  }

  /** Blocks that `numTokens` tokens fill, the last one perhaps in part. */
  numBlocksFor(numTokens: number): number {
    return Math.ceil(numTokens / this.blockSize);
  }

  /** Grows a block table until it holds `numTokens` tokens. Takes nothing and says false when too few blocks are free. */
  reserve(sequence: Sequence, numTokens: number): boolean {
    const numMissing = this.numBlocksFor(numTokens) - sequence.blockTable.length;
    if (numMissing > this.#freeBlocks.length) return false;
    for (let i = 0; i < numMissing; i++) sequence.blockTable.push(this.#freeBlocks.pop() as number);
    if (numMissing > 0) {
      this.#log?.allocate(sequence.request.requestId, sequence.blockTable.slice(-numMissing), this.#freeBlocks.length);
      this.#log?.table(sequence.request.requestId, sequence.blockTable);
    }
    return true;
  }

  /** Takes back every block of a sequence. */
  release(sequence: Sequence): void {
    const blocks = sequence.blockTable.splice(0).reverse();
    this.#freeBlocks.push(...blocks);
    if (blocks.length > 0) this.#log?.free(sequence.request.requestId, blocks, this.#freeBlocks.length);
    if (this.#freeBlocks.length > this.numBlocks) {
      throw new NdsError('ERR_INTERNAL', `Expected at most ${this.numBlocks} free blocks but counted ${this.#freeBlocks.length}`);
    }
  }
}
