/** Flattens a scheduled batch into the arrays of a `StepPlan`. */
import { type DraftPlan, firstDraft, LogitRowKind, newestToken, type StepPlan } from '../../protocol/step-plan.ts';
import { numRowsReturned, type ScheduledBatch, type ScheduledSequence } from './batch.ts';
import { buildAdmissions } from './slot-parameters.ts';

const noInts = new Int32Array(0);

/** Inputs of a plan besides its batch. */
export interface PlanOptions {
  readonly blockSize: number;
  /** Whether a draft model may draft now or later; native then keeps the tokens of sequences. */
  readonly hasDraftModel: boolean;
}

/** Builds the plan of step `step`. Call it before scheduling the next batch, which advances the sequences. */
export function buildPlan(step: number, batch: ScheduledBatch, { blockSize, hasDraftModel }: PlanOptions): StepPlan {
  const slots = new Int32Array(batch.length);
  const tokenIds: number[] = [];
  const cuQueryLens = new Int32Array(batch.length + 1);
  const contextLens = new Int32Array(batch.length);
  const blockTable: number[] = [];
  const cuBlocks = new Int32Array(batch.length + 1);
  const blockCopies: number[] = [];
  const rows = new OutputRows();
  batch.forEach((scheduled, i) => {
    const { sequence, start, numTokens, fromSlot, drafting, copy } = scheduled;
    rows.add(scheduled, tokenIds.length - start);
    const end = start + numTokens;
    if (fromSlot) {
      tokenIds.push(newestToken);
      for (let d = 0; d < numTokens - 1; d++) tokenIds.push(drafting?.tokenIds?.[d] ?? firstDraft - d);
    } else for (let position = start; position < end; position++) tokenIds.push(sequence.tokenIds[position] as number);
    const numBlocks = Math.ceil(end / blockSize);
    for (let b = 0; b < numBlocks; b++) blockTable.push(sequence.blockTable[b] as number);
    if (copy !== null) blockCopies.push(...copy);
    slots[i] = sequence.slot;
    contextLens[i] = end;
    cuQueryLens[i + 1] = tokenIds.length;
    cuBlocks[i + 1] = blockTable.length;
  });
  return {
    step,
    slots,
    tokenIds: new Int32Array(tokenIds),
    cuQueryLens,
    contextLens,
    blockTables: new Int32Array(blockTable),
    cuBlocks,
    numDrafts: countDrafts(batch),
    draft: buildDraft(batch),
    blockCopies: new Int32Array(blockCopies),
    ...rows.build(),
    ...buildAdmissions(batch, hasDraftModel),
  };
}

/** `[numSeqs]` drafts per sequence; empty when none drafts or lets the draft model catch up. */
function countDrafts(batch: ScheduledBatch): Int32Array {
  if (batch.every(({ drafting }) => drafting === null)) return noInts;
  const numDrafts = new Int32Array(batch.length);
  batch.forEach(({ drafting }, i) => {
    numDrafts[i] = drafting?.numDrafts ?? 0;
  });
  return numDrafts;
}

/** The draft model's part; each block table covers what it writes. */
function buildDraft(batch: ScheduledBatch): DraftPlan | null {
  if (!batch.some(({ drafting }) => drafting !== null && drafting.draftLen > 0)) return null;
  const lens = new Int32Array(batch.length);
  const blockTable: number[] = [];
  const cuBlocks = new Int32Array(batch.length + 1);
  batch.forEach(({ sequence, drafting }, i) => {
    if (drafting !== null && drafting.draftLen > 0) {
      lens[i] = drafting.draftLen;
      for (const block of sequence.draft.blockTable) blockTable.push(block);
    }
    cuBlocks[i + 1] = blockTable.length;
  });
  return { lens, blockTables: new Int32Array(blockTable), cuBlocks };
}

/** A step's rows through the LM head, and those whose hidden states are returned. */
class OutputRows {
  readonly #hidden: number[] = [];
  readonly #rows: number[] = [];
  readonly #kinds: number[] = [];
  readonly #targets: number[] = [];
  #hasTargets = false;

  /** `offset`: row in the step minus position in the sequence. */
  add(scheduled: ScheduledSequence, offset: number): void {
    const { sequence, start, numTokens, samples, firstRow } = scheduled;
    const end = firstRow + numRowsReturned(scheduled);
    for (let position = firstRow; position < end; position++) {
      if (sequence.request.type === 'hidden') this.#hidden.push(offset + position);
      else if (sequence.request.type === 'logits') this.#push(offset + position, LogitRowKind.return, -1);
      else this.#push(offset + position, LogitRowKind.promptLogprobs, sequence.tokenIds[position + 1] as number);
    }
    const numDrafts = scheduled.drafting?.numDrafts ?? 0;
    for (let d = numDrafts; samples && d >= 0; d--) this.#push(offset + start + numTokens - 1 - d, LogitRowKind.sample, -1);
  }

  build() {
    return {
      logitRows: new Int32Array(this.#rows),
      logitRowKinds: new Int32Array(this.#kinds),
      logitRowTargets: this.#hasTargets ? new Int32Array(this.#targets) : noInts,
      hiddenRows: this.#hidden.length > 0 ? new Int32Array(this.#hidden) : noInts,
    };
  }

  #push(row: number, kind: number, target: number): void {
    this.#rows.push(row);
    this.#kinds.push(kind);
    this.#targets.push(target);
    if (target >= 0) this.#hasTargets = true;
  }
}
