/** KV blocks: free, held by sequences, or cached under a name. Pure accounting, no memory. */
import { NdsError } from '../../protocol/errors.ts';
import type { KvLog } from './log.ts';

/** One block to be copied onto another before a step runs. */
export type BlockCopy = readonly [source: number, destination: number];

/** A holder of blocks: a sequence, or the draft model's state of one. */
export interface BlockHolder {
  /** For logs. */
  readonly name: string;
  /** Physical block of each logical block. */
  readonly blockTable: number[];
  /** Blocks of the table that were named. */
  numNamedBlocks: number;
}

/**
 * Allocates the physical blocks `0 … numBlocks - 1` of `blockSize` tokens each. Several sequences may hold the same
 * block. A full block can be named: once free, it keeps its contents until evicted, least recently released first. A
 * shared or named block is never written.
 */
export class BlockManager {
  readonly numBlocks: number;
  readonly blockSize: number;
  /** `[numBlocks]` holders of each block. */
  readonly #refCounts: Int32Array;
  /** Free and unnamed. Last in, first out: a block just released is likely still in the CPU cache. */
  readonly #blankBlocks: number[];
  /** Free and named, in order of release. */
  readonly #reusableBlocks = new Set<number>();
  readonly #names: (string | undefined)[];
  readonly #blockOfName = new Map<string, number>();
  readonly #log: KvLog | null;
  #numEvictions = 0;

  constructor(numBlocks: number, blockSize: number, log: KvLog | null = null) {
    this.#log = log;
    this.numBlocks = numBlocks;
    this.blockSize = blockSize;
    this.#refCounts = new Int32Array(numBlocks);
    this.#names = new Array<string | undefined>(numBlocks).fill(undefined);
    this.#blankBlocks = Array.from({ length: numBlocks }, (_, i) => numBlocks - 1 - i);
  }

  /** Blocks without a holder, named ones included. */
  get numFreeBlocks(): number {
    return this.#blankBlocks.length + this.#reusableBlocks.size;
  }

  /** Blocks with a name, held or free. */
  get numNamedBlocks(): number {
    return this.#blockOfName.size;
  }

  /** Named blocks evicted so far. */
  get numEvictions(): number {
    return this.#numEvictions;
  }

  /** Blocks for `numTokens` tokens, the last perhaps partial. */
  numBlocksFor(numTokens: number): number {
    return Math.ceil(numTokens / this.blockSize);
  }

  /** Blocks of the longest cached prefix of `names`. Acquires nothing. */
  find(names: readonly string[]): number[] {
    const blocks: number[] = [];
    for (const name of names) {
      const block = this.#blockOfName.get(name);
      if (block === undefined) break;
      blocks.push(block);
    }
    return blocks;
  }

  /** How many of these blocks are free, i.e. would leave the free list if held. */
  countFree(blocks: readonly number[]): number {
    return blocks.reduce((count, block) => count + (this.#refCounts[block] === 0 ? 1 : 0), 0);
  }

  /** Blocks that releasing all of these sequences would free. */
  countHeldBy(sequences: readonly BlockHolder[]): number {
    const holders = new Map<number, number>();
    for (const { blockTable } of sequences) for (const block of blockTable) holders.set(block, (holders.get(block) ?? 0) + 1);
    return [...holders].filter(([block, count]) => count === this.#refCounts[block]).length;
  }

  /** Adds a holder to these blocks: they become the start of the sequence's empty table. */
  share(sequence: BlockHolder, blocks: readonly number[]): void {
    for (const block of blocks) {
      this.#reusableBlocks.delete(block);
      this.#refCounts[block] = this.#count(block) + 1;
      sequence.blockTable.push(block);
    }
    if (blocks.length > 0) this.#log?.hit(sequence.name, blocks, this.numFreeBlocks);
  }

  /** Grows a block table to `numTokens` tokens; false, taking none, if fewer than `numKept` would remain free. */
  reserve(sequence: BlockHolder, numTokens: number, numKept = 0): boolean {
    const numMissing = this.numBlocksFor(numTokens) - sequence.blockTable.length;
    if (numMissing > 0 && numMissing > this.numFreeBlocks - numKept) return false;
    for (let i = 0; i < numMissing; i++) sequence.blockTable.push(this.#take());
    if (numMissing > 0) {
      this.#log?.allocate(sequence.name, sequence.blockTable.slice(-numMissing), this.numFreeBlocks);
      this.#log?.table(sequence.name, sequence.blockTable);
    }
    return true;
  }

  /** Releases the blocks beyond `numTokens` tokens. */
  truncate(sequence: BlockHolder, numTokens: number): void {
    const blocks = sequence.blockTable.splice(this.numBlocksFor(numTokens)).reverse();
    for (const block of blocks) this.#giveBack(block);
    if (blocks.length > 0) this.#log?.free(sequence.name, blocks, this.numFreeBlocks);
  }

  /**
   * Copy-on-write: replaces the block of token `position` with a private one, if it is shared or named.
   * @returns the copy to run before the sequence writes; null when the block is already private
   */
  makeWritable(sequence: BlockHolder, position: number): BlockCopy | null {
    const index = Math.floor(position / this.blockSize);
    const source = sequence.blockTable[index];
    if (source === undefined || (this.#count(source) === 1 && this.#names[source] === undefined)) return null;
    const destination = this.#take();
    sequence.blockTable[index] = destination;
    this.#giveBack(source);
    this.#log?.copy(sequence.name, source, destination);
    return [source, destination];
  }

  /** Names a sequence's first blocks, which are full and final. If a name is taken, the block that has it keeps it. */
  name(sequence: BlockHolder, names: readonly string[]): void {
    for (; sequence.numNamedBlocks < names.length; sequence.numNamedBlocks++) {
      const name = names[sequence.numNamedBlocks] as string;
      const block = sequence.blockTable[sequence.numNamedBlocks] as number;
      if (this.#blockOfName.has(name) || this.#names[block] !== undefined) continue;
      this.#blockOfName.set(name, block);
      this.#names[block] = name;
      this.#log?.cache(sequence.name, block);
    }
  }

  /** Releases all blocks of a sequence, the last first, so that eviction shortens its cached prefix from the end. */
  release(sequence: BlockHolder): void {
    const blocks = sequence.blockTable.splice(0).reverse();
    for (const block of blocks) this.#giveBack(block);
    sequence.numNamedBlocks = 0;
    if (blocks.length > 0) this.#log?.free(sequence.name, blocks, this.numFreeBlocks);
  }

  /** Drops every name: the contents of the blocks are gone. */
  forget(): void {
    for (const block of this.#blockOfName.values()) {
      this.#names[block] = undefined;
      if (this.#reusableBlocks.delete(block)) this.#blankBlocks.push(block);
      this.#log?.evict(block);
    }
    this.#blockOfName.clear();
  }

  #take(): number {
    const block = this.#blankBlocks.pop() ?? this.#evict();
    this.#refCounts[block] = 1;
    return block;
  }

  #evict(): number {
    const [block] = this.#reusableBlocks;
    if (block === undefined) throw new NdsError('ERR_INTERNAL', 'Expected a free KV block but there is none');
    this.#reusableBlocks.delete(block);
    this.#blockOfName.delete(this.#names[block] as string);
    this.#names[block] = undefined;
    this.#numEvictions++;
    this.#log?.evict(block);
    return block;
  }

  #giveBack(block: number): void {
    const count = this.#count(block) - 1;
    if (count < 0) throw new NdsError('ERR_INTERNAL', `Expected a block that is held but block ${block} was given back once more`);
    this.#refCounts[block] = count;
    if (count > 0) return;
    if (this.#names[block] === undefined) this.#blankBlocks.push(block);
    else this.#reusableBlocks.add(block);
  }

  #count(block: number): number {
    return this.#refCounts[block] as number;
  }
}
