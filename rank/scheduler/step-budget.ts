/** A step while it is being put together: who got how many tokens, and what is left of its budget. */
import type { BlockManager } from '../kv/block-manager.ts';
import { numRowsReturned, type ScheduledBatch, type ScheduledSequence } from './batch.ts';
import type { Drafting, Sequence } from './sequence.ts';

/** A share that may grow: a prefill gets what others leave. */
type Share = { -readonly [Key in keyof ScheduledSequence]: ScheduledSequence[Key] };

/** Deals out the tokens and the rows of the LM head of one step. */
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

  /** Tokens that are left. */
  get numTokens(): number {
    return this.#numTokens;
  }

  /** Rows of the LM head that are left. */
  get numLogitRows(): number {
    return this.#numLogitRows;
  }

  get sequences(): Iterable<Sequence> {
    return this.#shares.keys();
  }

  get batch(): ScheduledBatch | null {
    return this.#shares.size > 0 ? [...this.#shares.values()] : null;
  }

  /** How many tokens from `start` on a sequence can use of what is left, at most `most`. */
  countTokens(sequence: Sequence, start: number, most: number): number {
    const numWanted = sequence.numTokensToCompute === 0 ? 0 : sequence.numTokens - start;
    let numTokens = Math.min(numWanted, this.#numTokens, most);
    const firstRow = Math.max(start, sequence.numReturnedRows);
    const numRows = () => numRowsReturned({ sequence, start, numTokens, firstRow });
    if (numRows() > this.#numLogitRows) numTokens = firstRow + this.#numLogitRows - start;
    // Without a row for its logits the last token must wait for the next step.
    const samples = sequence.request.type === 'generate' && numTokens === numWanted;
    if (samples && numRows() === this.#numLogitRows) numTokens--;
    return Math.max(0, numTokens);
  }

  /** Gives a sequence its next `numTokens` tokens, after those that it may have already, and drafts behind them. */
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
    this.#numLogitRows -= numRowsReturned({ sequence, start, numTokens, firstRow }) + Number(samples) + numDrafts;
    sequence.advance(numTokens + numDrafts, samples, drafting);
  }
}
