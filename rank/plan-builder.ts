/** Turns a scheduled batch into the flat arrays of a `StepPlan`. */
import { LogitRowKind, type StepPlan } from '../protocol/step-plan.ts';
import { buildAdmissions } from './admission.ts';
import type { ScheduledBatch } from './scheduler.ts';

/** A slot's newest token, whatever its value. */
const newestToken = -1;

/** Builds the plan of step `step`. Must run before the next batch is scheduled, which moves the sequences on. */
export function buildPlan(step: number, batch: ScheduledBatch, blockSize: number): StepPlan {
  const tokenIds: number[] = [];
  const cuQueryLens = new Int32Array(batch.length + 1);
  const contextLens = new Int32Array(batch.length);
  const blockTable: number[] = [];
  const cuBlocks = new Int32Array(batch.length + 1);
  const logitRows: number[] = [];
  const logitRowKinds: number[] = [];
  batch.forEach(({ sequence, start, numTokens, samples, returnsLogits, fromSlot }, i) => {
    const firstRow = tokenIds.length;
    const end = start + numTokens;
    if (fromSlot) tokenIds.push(newestToken);
    else for (let position = start; position < end; position++) tokenIds.push(sequence.tokenIds[position] as number);
    for (let row = samples ? tokenIds.length - 1 : firstRow; (samples || returnsLogits) && row < tokenIds.length; row++) {
      logitRows.push(row);
      logitRowKinds.push(samples ? LogitRowKind.sample : LogitRowKind.return);
    }
    const numBlocks = Math.ceil(end / blockSize);
    for (let b = 0; b < numBlocks; b++) blockTable.push(sequence.blockTable[b] as number);
    cuQueryLens[i + 1] = tokenIds.length;
    contextLens[i] = end;
    cuBlocks[i + 1] = blockTable.length;
  });
  return {
    step,
    slots: Int32Array.from(batch, ({ sequence }) => sequence.slot),
    tokenIds: Int32Array.from(tokenIds),
    cuQueryLens,
    contextLens,
    blockTables: [Int32Array.from(blockTable)],
    cuBlocks: [cuBlocks],
    logitRows: Int32Array.from(logitRows),
    logitRowKinds: Int32Array.from(logitRowKinds),
    logitRowTargets: new Int32Array(0),
    ...buildAdmissions(batch),
  };
}
