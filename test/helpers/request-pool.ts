/** Random requests of every kind, and outcomes in a form whose equality is bit-exact. */
import type { PositionLogprobs, SamplingParams, StreamChunk } from '../../rank/index.ts';
import { randomIntegers } from './random.ts';

/** A request, independent of any schedule. */
export interface PoolRequest {
  readonly promptTokenIds: readonly number[];
  readonly params: SamplingParams;
}

/** Per position, one text with the token and all its log-probabilities. */
export interface PoolOutcome {
  readonly samples: string[][];
  promptLogprobs: string[];
}

export const poolVocabSize = 256;

/** Prompts that often share a prefix, under every sampling parameter. */
export function makePool(seed: number, size: number): PoolRequest[] {
  const below = randomIntegers(seed);
  const integer = (low: number, high: number) => low + below(high - low + 1);
  const oneIn = (count: number) => below(count) === 0;
  const token = () => integer(0, poolVocabSize - 1);
  const maybe = <T>(count: number, value: () => T): T | undefined => (oneIn(count) ? value() : undefined);
  return Array.from({ length: size }, () => {
    const length = oneIn(3) ? 32 * integer(1, 3) : integer(1, 100);
    const kind = integer(0, 3);
    const numCommon = kind < 3 ? integer(0, length) : 0;
    const maxTokens = integer(1, 24);
    const temperature = oneIn(4) ? 0 : integer(5, 15) / 10;
    const params: SamplingParams = {
      temperature,
      seed: integer(0, 1000),
      maxTokens,
      n: temperature > 0 ? maybe(4, () => integer(2, 4)) : undefined,
      topK: maybe(3, () => integer(1, 50)),
      topP: maybe(3, () => integer(50, 99) / 100),
      minP: maybe(4, () => integer(1, 20) / 100),
      presencePenalty: maybe(4, () => integer(-10, 20) / 10),
      frequencyPenalty: maybe(4, () => integer(-10, 20) / 10),
      repetitionPenalty: maybe(4, () => integer(8, 15) / 10),
      logitBias: maybe(5, () => ({ [token()]: integer(-50, 50) / 10, [token()]: 3 })),
      allowedTokenIds: maybe(8, () => Array.from({ length: 40 }, token)),
      minTokens: maybe(4, () => integer(0, maxTokens)),
      stopTokenIds: maybe(3, () => Array.from({ length: 8 }, token)),
      ignoreEos: oneIn(2),
      logprobs: maybe(3, () => integer(0, 8)),
      promptLogprobs: maybe(6, () => integer(0, 3)),
    };
    return { promptTokenIds: Array.from({ length }, (_, i) => (i < numCommon ? (i * 37 + kind * 11) % poolVocabSize : token())), params };
  });
}

/** An outcome without tokens. */
export function emptyOutcome({ params }: PoolRequest): PoolOutcome {
  return { samples: Array.from({ length: params.n ?? 1 }, () => []), promptLogprobs: [] };
}

export function addChunk(outcome: PoolOutcome, { index, tokenIds, logprobs }: Pick<StreamChunk, 'index' | 'tokenIds' | 'logprobs'>): void {
  tokenIds.forEach((tokenId, i) => outcome.samples[index]?.push(logprobs === null ? String(tokenId) : inText(logprobs[i] ?? null)));
}

/** Numbers in full precision, so that equal text means equal bits. */
export function inText(position: PositionLogprobs | null): string {
  if (position === null) return '';
  const { tokenId, logprob, rank, top } = position;
  return `${tokenId}/${rank}/${logprob} ${top.map((other) => `${other.tokenId}:${other.logprob}`).join(' ')}`;
}

/** Whether an aborted outcome is a prefix of the whole one. */
export function isBeginning(part: PoolOutcome, whole: PoolOutcome): boolean {
  return part.samples.every((sample, i) => sample.every((text, position) => text === whole.samples[i]?.[position]));
}
