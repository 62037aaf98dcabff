/** A step under construction: the tokens of each sequence, and the remaining budget. */
import type { BlockManager } from '../kv/block-manager.ts';
import { numLogitRowsReturned, type ScheduledBatch, type ScheduledSequence } from './batch.ts';
import type { Drafting, Sequence } from './sequence.ts';

/** A mutable share: a prefill may grow by unclaimed budget. */
type Share = { -readonly [Key in keyof ScheduledSequence]: ScheduledSequence[Key] };

/** Allots one step's tokens and LM-head rows. */
export class StepBuilder {
  readonly #blocks: BlockManager;
  readonly #shares = new Map<Sequence, Share>();
  #numTokens: number;
  #numLogitRows: number;

  constructor(blocks: BlockManager, numTokens: number, numLogitRows: number) {
    this.#blocks = blocks;
    this.#numTokens = numTokens;
    this.#numLogitRows = numLogitRows;
  }

  /** Remaining tokens. */
  get numTokens(): number {
    return this.#numTokens;
  }

  /** Remaining LM-head rows. */
  get numLogitRows(): number {
    return this.#numLogitRows;
  }

  get sequences(): Iterable<Sequence> {
    return this.#shares.keys();
  }

  get batch(): ScheduledBatch | null {
    return this.#shares.size > 0 ? [...this.#shares.values()] : null;
  }

  /** Tokens from `start` on that a sequence can use of the remaining budget, at most `most`. */
  countTokens(sequence: Sequence, start: number, most: number): number {
    const numWanted = sequence.numTokensToCompute === 0 ? 0 : sequence.numTokens - start;
    let numTokens = Math.min(numWanted, this.#numTokens, most);
    const firstRow = Math.max(start, sequence.numReturnedRows);
    const numRows = () => numLogitRowsReturned({ sequence, start, numTokens, firstRow });
    if (numRows() > this.#numLogitRows) numTokens = firstRow + this.#numLogitRows - start;
    // Without an LM-head row left, the last token waits for the next step.
    const samples = sequence.request.type === 'generate' && numTokens === numWanted;
    if (samples && numRows() === this.#numLogitRows) numTokens--;
    return Math.max(0, numTokens);
  }

  /** Allots a sequence its next `numTokens` tokens, on top of any it has in this step, then its drafts. */
  take(sequence: Sequence, numTokens: number, drafting: Drafting | null = null): void {
    if (numTokens === 0) return;
    const start = sequence.numCachedTokens;
    const samples = sequence.request.type === 'generate' && numTokens === sequence.numTokensToCompute;
    const firstRow = Math.max(start, sequence.numReturnedRows);
    const numDrafts = drafting?.numDrafts ?? 0;
    const share = this.#shares.get(sequence);
    if (share === undefined) {
      const { isAdmitted, isNewestInSlot } = sequence;
      const copy = this.#blocks.makeWritable(sequence, start);
      this.#shares.set(sequence, {
        sequence,
        start,
        numTokens: numTokens + numDrafts,
        firstRow,
        samples,
        admits: !isAdmitted,
        fromSlot: isNewestInSlot,
        drafting,
        copy,
      });
    } else {
      share.numTokens += numTokens;
      share.samples = samples;
    }
    this.#numTokens -= numTokens + numDrafts;
    this.#numLogitRows -= numLogitRowsReturned({ sequence, start, numTokens, firstRow }) + Number(samples) + numDrafts;
    sequence.advance(numTokens + numDrafts, samples, drafting);
  }
}
