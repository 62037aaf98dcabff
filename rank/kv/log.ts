/** KV block and slot events, one line each: for learning, and for debugging block accounting. */

/** Called on every event. `name` is a sequence's; blocks are physical; tokens are positions in the sequence. */
export interface KvLog {
  /** A sequence got blocks; `numFreeBlocks` remain. */
  allocate(name: string, blocks: readonly number[], numFreeBlocks: number): void;
  /** Cached blocks became a sequence's first; `numFreeBlocks` remain. */
  hit(name: string, blocks: readonly number[], numFreeBlocks: number): void;
  /** A sequence's current block table. */
  table(name: string, blockTable: readonly number[]): void;
  /** A sequence got a slot, its native state. */
  slot(name: string, slot: number): void;
  /** A step writes the KV of tokens `[start, start + numTokens)`. */
  write(step: number, name: string, start: number, numTokens: number, blockTable: readonly number[], blockSize: number): void;
  /** A full block entered the prefix cache. */
  cache(name: string, block: number): void;
  /** A shared or named block is copied before a sequence writes to it. */
  copy(name: string, source: number, destination: number): void;
  /** A free cached block is reused, its contents lost. */
  evict(block: number): void;
  /** A sequence released blocks; `numFreeBlocks` are free now. */
  free(name: string, blocks: readonly number[], numFreeBlocks: number): void;
  /** The KV of tokens from `numTokens` on is dropped: rejected drafts, or all of it on preemption. */
  rollback(name: string, numTokensBefore: number, numTokens: number): void;
}

/** Passes every event to `write` as one line, without a newline. */
export function lineKvLog(write: (line: string) => void): KvLog {
  const line = (event: string, text: string) => write(`kv ${event.padEnd(8)} ${text}`);
  return {
    allocate: (name, blocks, numFree) => line('allocate', `request ${name}: ${list(blocks)} (${numFree} free)`),
    hit: (name, blocks, numFree) => line('hit', `request ${name}: ${list(blocks)} (${numFree} free)`),
    table: (name, blockTable) => line('table', `request ${name}: ${blockTable.join(' ')}`),
    slot: (name, slot) => line('slot', `request ${name}: slot ${slot}`),
    write: (step, name, start, numTokens, blockTable, blockSize) =>
      line('write', `request ${name}: step ${step}, ${tokens(start, numTokens)} -> ${places(start, numTokens, blockTable, blockSize)}`),
    cache: (name, block) => line('cache', `request ${name}: block ${block}`),
    copy: (name, source, destination) => line('copy', `request ${name}: block ${source} -> ${destination}`),
    evict: (block) => line('evict', `block ${block}`),
    free: (name, blocks, numFree) => line('free', `request ${name}: ${list(blocks)} (${numFree} free)`),
    rollback: (name, before, after) => line('rollback', `request ${name}: from ${before} to ${after} cached tokens`),
  };
}

function list(blocks: readonly number[]): string {
  return `${blocks.length === 1 ? 'block' : 'blocks'} ${blocks.length === 0 ? 'none' : blocks.join(' ')}`;
}

function range(first: number, count: number): string {
  return count === 1 ? `${first}` : `${first}-${first + count - 1}`;
}

function tokens(start: number, count: number): string {
  return `${count === 1 ? 'token' : 'tokens'} ${range(start, count)}`;
}

/** `7:30-31 4:0-2`: offsets 30 and 31 of block 7, then 0 to 2 of block 4. */
function places(start: number, numTokens: number, blockTable: readonly number[], blockSize: number): string {
  const parts: string[] = [];
  for (let position = start; position < start + numTokens; ) {
    const offset = position % blockSize;
    const count = Math.min(blockSize - offset, start + numTokens - position);
    parts.push(`${blockTable[Math.floor(position / blockSize)]}:${range(offset, count)}`);
    position += count;
  }
  return parts.join(' ');
}
