/** What becomes of KV blocks and slots, one line an event: for learners, and for whoever looks for a block that went astray. */
import type { ScheduledBatch } from './scheduler.ts';

/** Hears of every event when it happens. Requests and blocks are numbers; tokens are counted from a sequence's first. */
export interface KvLog {
  /** A sequence got blocks, after which so many are free. */
  allocate(requestId: number, blocks: readonly number[], numFreeBlocks: number): void;
  /** Blocks that were cached already became the first of a sequence. */
  hit(requestId: number, blocks: readonly number[], numTokens: number): void;
  /** A sequence's block table as it is now. */
  table(requestId: number, blockTable: readonly number[]): void;
  /** A sequence got a slot, the state that native keeps of it. */
  slot(requestId: number, slot: number): void;
  /** A step writes the KV of tokens `[start, start + numTokens)`. */
  write(step: number, requestId: number, start: number, numTokens: number, blockTable: readonly number[], blockSize: number): void;
  /** A full block can be found by its tokens from now on. */
  cache(requestId: number, block: number): void;
  /** A block that is shared is copied before a sequence writes to it. */
  copy(requestId: number, source: number, destination: number): void;
  /** A block that nobody uses loses what it held: it is to hold something else. */
  evict(block: number): void;
  /** A sequence gave up blocks, after which so many are free. */
  free(requestId: number, blocks: readonly number[], numFreeBlocks: number): void;
  /** A sequence gave way and is computed again later. */
  preempt(requestId: number, numTokens: number): void;
  /** Tokens from `numTokens` on are dropped. */
  rollback(requestId: number, numTokensBefore: number, numTokens: number): void;
}

/** Hands every event to `write` as a line without its end. */
export function lineKvLog(write: (line: string) => void): KvLog {
  const line = (event: string, text: string) => write(`kv ${event.padEnd(8)} ${text}`);
  return {
    allocate: (requestId, blocks, numFree) => line('allocate', `request ${requestId}: ${list(blocks)} (${numFree} free)`),
    hit: (requestId, blocks, numTokens) => line('hit', `request ${requestId}: ${list(blocks)} hold its first ${numTokens} tokens`),
    table: (requestId, blockTable) => line('table', `request ${requestId}: ${blockTable.join(' ')}`),
    slot: (requestId, slot) => line('slot', `request ${requestId}: slot ${slot}`),
    write: (step, requestId, start, numTokens, blockTable, blockSize) =>
      line(
        'write',
        `request ${requestId}: step ${step}, ${tokens(start, numTokens)} -> ${places(start, numTokens, blockTable, blockSize)}`,
      ),
    cache: (requestId, block) => line('cache', `request ${requestId}: block ${block}`),
    copy: (requestId, source, destination) => line('copy', `request ${requestId}: block ${source} -> ${destination}`),
    evict: (block) => line('evict', `block ${block}`),
    free: (requestId, blocks, numFree) => line('free', `request ${requestId}: ${list(blocks)} (${numFree} free)`),
    preempt: (requestId, numTokens) => line('preempt', `request ${requestId}: ${tokens(0, numTokens)} to be computed again`),
    rollback: (requestId, before, after) => line('rollback', `request ${requestId}: from ${before} to ${after} tokens`),
  };
}

/** Tells a log what the step of a batch writes. */
export function logWrites(log: KvLog, step: number, batch: ScheduledBatch, blockSize: number): void {
  for (const { sequence, start, numTokens, admits } of batch) {
    const { requestId } = sequence.request;
    if (admits) log.slot(requestId, sequence.slot);
    log.write(step, requestId, start, numTokens, sequence.blockTable, blockSize);
  }
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

/** `7:30-31 4:0-2`: places 30 and 31 of block 7, then 0 to 2 of block 4. */
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
