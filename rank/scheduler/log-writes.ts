/** Tells the KV log of a step. */
import type { KvLog } from '../kv/log.ts';
import type { ScheduledBatch } from './batch.ts';

/** Logs the slots and KV writes of a step. */
export function logWrites(log: KvLog, step: number, batch: ScheduledBatch, blockSize: number): void {
  for (const { sequence, start, numTokens, admits } of batch) {
    if (admits) log.slot(sequence.name, sequence.slot);
    log.write(step, sequence.name, start, numTokens, sequence.blockTable, blockSize);
  }
}
