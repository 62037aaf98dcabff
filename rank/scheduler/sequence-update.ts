/** What a step brought for one sequence, on its way to whoever waits for it. */
import type { Drafted, FinishReason } from '../engine/messages.ts';
import type { SequenceResult } from './result-reader.ts';
import type { Sequence } from './sequence.ts';

export interface SequenceUpdate extends SequenceResult {
  readonly sequence: Sequence;
  readonly finishReason: FinishReason | null;
  readonly stopTokenId: number | null;
  /** What the step drafted; null without speculation, and for the first token. */
  readonly drafted: Drafted | null;
  /** Whether nothing more comes of this sequence. */
  readonly finished: boolean;
}
