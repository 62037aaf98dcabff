/** Which KV blocks are free, which sequences hold which, and which can be found again by their contents: pure accounting, no memory. */
import { NdsError } from '../../protocol/errors.ts';
import type { KvLog } from './log.ts';

/** One block to be copied onto another before a step runs. */
export type BlockCopy = readonly [source: number, destination: number];

/** Who holds blocks: a sequence, or what the draft model keeps of one. */
export interface BlockHolder {
  /** In logs. */
  readonly name: string;
  /** Physical block of each logical block. */
  readonly blockTable: number[];
  /** Blocks of the table that were offered under their names. */
  numNamedBlocks: number;
}

/**
 * Hands out the physical blocks `0 … numBlocks - 1` of `blockSize` tokens each. Several sequences may hold the same block. A
 * full block can be given a name: it keeps its contents when nobody holds it any more, until its room is needed, the one
 * unused for longest first. A block that is shared or named is never written.
 */
export class BlockManager {
  readonly numBlocks: number;
  readonly blockSize: number;
  /** `[numBlocks]` how many sequences hold each block. */
  readonly #refCounts: Int32Array;
  /** Unnamed and held by nobody. Last in, first out: a block that was just in use is likely still in the processor's cache. */
  readonly #blankBlocks: number[];
  /** Named and held by nobody, in the order in which they were given back. */
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

  /** Blocks that nobody holds, named ones among them. */
  get numFreeBlocks(): number {
    return this.#blankBlocks.length + this.#reusableBlocks.size;
  }

  /** Blocks that can be found by name. */
  get numNamedBlocks(): number {
    return this.#blockOfName.size;
  }

  /** Named blocks whose contents were given up for their room. */
  get numEvictions(): number {
    return this.#numEvictions;
  }

  /** Blocks that `numTokens` tokens fill, the last one perhaps in part. */
  numBlocksFor(numTokens: number): number {
    return Math.ceil(numTokens / this.blockSize);
  }

  /** The blocks of the longest beginning of `names` that is here. Takes nothing. */
  find(names: readonly string[]): number[] {
    const blocks: number[] = [];
    for (const name of names) {
      const block = this.#blockOfName.get(name);
      if (block === undefined) break;
      blocks.push(block);
    }
    return blocks;
  }

  /** How many of these blocks are free, so that holding them takes from what is free. */
  countFree(blocks: readonly number[]): number {
    return blocks.reduce((count, block) => count + (this.#refCounts[block] === 0 ? 1 : 0), 0);
  }

  /** How many blocks would be free besides those that are, if these sequences gave all of theirs back. */
  countHeldBy(sequences: readonly BlockHolder[]): number {
    const holders = new Map<number, number>();
    for (const { blockTable } of sequences) for (const block of blockTable) holders.set(block, (holders.get(block) ?? 0) + 1);
    return [...holders].filter(([block, count]) => count === this.#refCounts[block]).length;
  }

  /** Lets a sequence hold these blocks too: they become the beginning of its empty table. */
  share(sequence: BlockHolder, blocks: readonly number[]): void {
    for (const block of blocks) {
      this.#reusableBlocks.delete(block);
      this.#refCounts[block] = this.#count(block) + 1;
      sequence.blockTable.push(block);
    }
    if (blocks.length > 0) this.#log?.hit(sequence.name, blocks, this.numFreeBlocks);
  }

  /** Grows a block table until it holds `numTokens` tokens. Takes nothing and says false when that would leave fewer than `numKept` blocks free. */
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

  /** Gives back what a block table has beyond `numTokens` tokens. */
  truncate(sequence: BlockHolder, numTokens: number): void {
    const blocks = sequence.blockTable.splice(this.numBlocksFor(numTokens)).reverse();
    for (const block of blocks) this.#giveBack(block);
    if (blocks.length > 0) this.#log?.free(sequence.name, blocks, this.numFreeBlocks);
  }

  /**
   * Puts a copy of its own in place of the block in which a sequence's token `position` lies, if others may read that block.
   * @returns what must be copied before the sequence writes; null when the block is its own
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

  /** Names a sequence's first blocks, which are full and will not change. Where the same contents have a name already, that block keeps it. */
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

  /** Takes back every block of a sequence, the last first: what is left of its text is then found from the beginning. */
  release(sequence: BlockHolder): void {
    const blocks = sequence.blockTable.splice(0).reverse();
    for (const block of blocks) this.#giveBack(block);
    sequence.numNamedBlocks = 0;
    if (blocks.length > 0) this.#log?.free(sequence.name, blocks, this.numFreeBlocks);
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
