/** The continuations of one prompt, put together from a stream of pieces and written out as text or for other programs. */
import type { StreamChunk } from '../../rank/index.ts';

/** A piece with what it reports where log-probabilities were asked for. */
export type Piece = Omit<StreamChunk, 'finished'> & {
  /** One for each token of the piece. */
  readonly logprobs?: readonly unknown[] | null;
  /** Of the prompt; with the first piece. */
  readonly promptLogprobs?: readonly unknown[] | null;
};

interface Continuation {
  text: string;
  readonly tokenIds: number[];
  readonly logprobs: unknown[];
  promptLogprobs: readonly unknown[] | null;
  last: Piece;
}

export class Continuations {
  readonly #byIndex = new Map<number, Continuation>();
  numTokens = 0;

  take(piece: Piece): void {
    let continuation = this.#byIndex.get(piece.index);
    if (continuation === undefined) {
      continuation = { text: '', tokenIds: [], logprobs: [], promptLogprobs: null, last: piece };
      this.#byIndex.set(piece.index, continuation);
    }
    continuation.text += piece.text;
    continuation.tokenIds.push(...piece.tokenIds);
    continuation.logprobs.push(...(piece.logprobs ?? []));
    continuation.promptLogprobs ??= piece.promptLogprobs ?? null;
    continuation.last = piece;
    this.numTokens += piece.tokenIds.length;
  }

  /** All texts, each under a line that numbers it. */
  get text(): string {
    const all = this.#ordered();
    return all.map(({ text }, i) => `--- ${i + 1} of ${all.length} ---\n${text}`).join('\n');
  }

  /** All as plain objects. The seed is text, for JSON holds no such large integers; log-probabilities are there where some came. */
  describe(prompt: string): Record<string, unknown>[] {
    return this.#ordered().map(({ text, tokenIds, logprobs, promptLogprobs, last }) => ({
      prompt,
      text,
      tokenIds,
      seed: String(last.seed),
      finishReason: last.finishReason,
      stopReason: last.stopReason,
      ...(logprobs.length > 0 && { logprobs }),
      ...(promptLogprobs !== null && { promptLogprobs }),
    }));
  }

  #ordered(): Continuation[] {
    return [...this.#byIndex.values()].sort((a, b) => a.last.index - b.last.index);
  }
}
