/** Plans for the runner alone, from sequences that a test writes down. */
import { toRagged } from '../../protocol/admit-lists.ts';
import { LogitRowKind, type StepPlan } from '../../protocol/step-plan.ts';
import { greedyParams, type SlotParams } from '../../rank/scheduler/request.ts';

/** All parameters that a slot is loaded with. */
export interface SlotState extends SlotParams {
  readonly sampleIndex: number;
  readonly stopTokenIds: readonly number[];
}

const greedyState: SlotState = { ...greedyParams, sampleIndex: 0, stopTokenIds: [] };

/** A sequence, in the slot of its index, none of whose tokens is computed yet. */
export interface Admitted {
  readonly prompt: readonly number[];
  readonly output?: readonly number[];
  readonly params?: Partial<SlotState>;
}

/** The layout of a plan: sequence i in slot and block i, with all logit rows or the last one of each sequence. */
function layOut(step: number, tokens: readonly (readonly number[])[], starts: readonly number[], rows: 'all' | 'last', kind: number) {
  const ends = tokens.map((_, i) => tokens.slice(0, i + 1).reduce((sum, { length }) => sum + length, 0));
  const numTokens = ends.at(-1) ?? 0;
  const logitRows = rows === 'all' ? Int32Array.from({ length: numTokens }, (_, i) => i) : Int32Array.from(ends, (end) => end - 1);
  return {
    step,
    slots: Int32Array.from(tokens, (_, i) => i),
    tokenIds: Int32Array.from(tokens.flat()),
    cuQueryLens: Int32Array.from([0, ...ends]),
    contextLens: Int32Array.from(tokens, ({ length }, i) => (starts[i] as number) + length),
    blockTables: Int32Array.from(tokens, (_, i) => i),
    cuBlocks: Int32Array.from({ length: tokens.length + 1 }, (_, i) => i),
    logitRows,
    logitRowKinds: new Int32Array(logitRows.length).fill(kind),
    logitRowTargets: new Int32Array(0),
    hiddenRows: new Int32Array(0),
    blockCopies: new Int32Array(0),
    numDrafts: new Int32Array(0),
    draft: null,
  };
}

/**
 * Admits the sequences and computes all their tokens. `sample` samples after the last token of each; another kind
 * returns all rows.
 */
export function admitPlan(step: number, sequences: readonly Admitted[], kind: number = LogitRowKind.sample): StepPlan {
  const tokens = sequences.map(({ prompt, output = [] }) => [...prompt, ...output]);
  const params = sequences.map(({ params }) => ({ ...greedyState, ...params }));
  const words = params.flatMap(({ badWords }) => badWords);
  const numWords = params.map((_, i) => params.slice(0, i).reduce((sum, { badWords }) => sum + badWords.length, 0));
  const biases = params.flatMap(({ logitBias }) => logitBias);
  return {
    ...layOut(
      step,
      tokens,
      tokens.map(() => 0),
      kind === LogitRowKind.sample ? 'last' : 'all',
      kind,
    ),
    admitSlots: Int32Array.from(tokens, (_, i) => i),
    admitLens: new Int32Array(tokens.length),
    admitFloats: Float32Array.from(
      params.flatMap((p) => [p.temperature, p.topP, p.minP, p.presencePenalty, p.frequencyPenalty, p.repetitionPenalty]),
    ),
    admitInts: Int32Array.from(
      params.flatMap((p, i) => [
        p.topK,
        p.sampleIndex,
        (sequences[i] as Admitted).prompt.length,
        p.minTokens,
        p.numLogprobs ?? -1,
        p.numPromptLogprobs ?? -1,
        0,
      ]),
    ),
    admitSeeds: Uint32Array.from(params.flatMap(({ seed }) => [Number(seed & 0xffffffffn), Number(seed >> 32n)])),
    admitLists: {
      history: toRagged(tokens),
      bias: toRagged(params.map(({ logitBias }) => logitBias.map(([id]) => id))),
      biasValues: Float32Array.from(biases, ([, bias]) => bias),
      allowed: toRagged(params.map(({ allowedTokenIds }) => allowedTokenIds ?? [])),
      stops: toRagged(params.map(({ stopTokenIds }) => stopTokenIds)),
      badWords: toRagged(words),
      cuBadWords: words.length === 0 ? new Int32Array(0) : Int32Array.from([...numWords, words.length]),
    },
  };
}

/** Samples the next token of sequences with `lengths` cached tokens and the newest token in their slots. */
export function decodePlan(step: number, lengths: readonly number[]): StepPlan {
  const newest = lengths.map(() => [-1]);
  return {
    ...admitPlan(step, []),
    ...layOut(step, newest, lengths, 'last', LogitRowKind.sample),
  };
}
