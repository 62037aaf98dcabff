/** Turns a scheduled batch into the flat arrays of a `StepPlan`. */
import { LogitRowKind, type StepPlan } from '../protocol/step-plan.ts';
import type { SlotParams } from './engine-messages.ts';
import type { ScheduledBatch } from './scheduler.ts';

/** A slot's newest token, whatever its value. */
const newestToken = -1;

/** Parameters of sequences that never sample: greedy, unfiltered. */
const unused: SlotParams = { temperature: 0, topP: 1, minP: 0, topK: 0, seed: 0n, sampleIndex: 0 };

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
    blockCopies: new Int32Array(0),
    blockTables: [Int32Array.from(blockTable)],
    cuBlocks: [cuBlocks],
    logitRows: Int32Array.from(logitRows),
    logitRowKinds: Int32Array.from(logitRowKinds),
    ...buildAdmissions(batch),
  };
}

/** State that native must load into slots before the step: a fresh sequence has nothing cached, nor has a preempted one. */
function buildAdmissions(batch: ScheduledBatch) {
  const admitted = batch.filter(({ admits }) => admits);
  const admitFloats = new Float32Array(admitted.length * 3);
  const admitInts = new Int32Array(admitted.length * 2);
  const admitSeeds = new Uint32Array(admitted.length * 2);
  admitted.forEach(({ sequence: { request } }, i) => {
    const params = request.type === 'generate' ? request.params : unused;
    admitFloats.set([params.temperature, params.topP, params.minP], i * 3);
    admitInts.set([params.topK, params.sampleIndex], i * 2);
    admitSeeds.set([Number(params.seed & 0xffffffffn), Number(params.seed >> 32n)], i * 2);
  });
  return {
    admitSlots: Int32Array.from(admitted, ({ sequence }) => sequence.slot),
    admitLens: Int32Array.from(admitted, ({ start }) => start),
    admitFloats,
    admitInts,
    admitSeeds,
  };
}
