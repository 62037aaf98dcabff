/** What only some admitted slots bring with them, as lists of different lengths over flat arrays. */
import { NdsError } from './errors.ts';
import type { Section, SectionClass } from './sections.ts';

/** List i is `values[offsets[i] … offsets[i + 1])`. Without any list both are empty. */
export interface Ragged {
  readonly values: Int32Array;
  /** `[number of lists + 1]` prefix sums of their lengths, or empty. */
  readonly offsets: Int32Array;
}

/** One list for each admitted slot, empty where the slot needs none. */
export interface AdmitLists {
  /** All tokens known of the sequence, prompt then output: where penalties or bad words look back. */
  readonly history: Ragged;
  /** Tokens whose logits are raised or lowered. */
  readonly bias: Ragged;
  /** `[bias.values.length]` by how much. */
  readonly biasValues: Float32Array;
  /** The only tokens that may be drawn; empty = all. */
  readonly allowed: Ragged;
  /** Tokens that are not drawn before `minTokens` were. */
  readonly stops: Ragged;
  /** Tokens of each bad word, all slots' words one after the other. */
  readonly badWords: Ragged;
  /** `[numAdmitted + 1]` prefix sums of the number of each slot's bad words, or empty. */
  readonly cuBadWords: Int32Array;
}

/** Section ids, as `native/core/plan/plan_view.cc` has them: values, offsets. */
const raggedIds = { history: [32, 33], bias: [34, 36], allowed: [37, 38], stops: [39, 40], badWords: [41, 42] } as const;
const biasValuesId = 35;
const cuBadWordsId = 43;

const raggedNames = Object.keys(raggedIds) as (keyof typeof raggedIds)[];
const noInts = new Int32Array(0);

/** No slot brings anything. */
export const noLists: AdmitLists = {
  history: { values: noInts, offsets: noInts },
  bias: { values: noInts, offsets: noInts },
  biasValues: new Float32Array(0),
  allowed: { values: noInts, offsets: noInts },
  stops: { values: noInts, offsets: noInts },
  badWords: { values: noInts, offsets: noInts },
  cuBadWords: noInts,
};

/** The element type of each section. */
export const listLayout: readonly (readonly [number, SectionClass])[] = [
  ...raggedNames.flatMap((name) => raggedIds[name].map((id) => [id, Int32Array] as const)),
  [biasValuesId, Float32Array],
  [cuBadWordsId, Int32Array],
];

/** Lists one after the other; empty offsets when all are empty. */
export function toRagged(lists: readonly (readonly number[])[]): Ragged {
  if (lists.every((list) => list.length === 0)) return { values: noInts, offsets: noInts };
  const offsets = new Int32Array(lists.length + 1);
  lists.forEach((list, i) => {
    offsets[i + 1] = (offsets[i] as number) + list.length;
  });
  return { values: Int32Array.from(lists.flat()), offsets };
}

/** The sections of the lists that are there. */
export function packLists(lists: AdmitLists): [number, Section][] {
  const sections: [number, Section][] = [];
  for (const name of raggedNames) {
    const { values, offsets } = lists[name];
    const [valuesId, offsetsId] = raggedIds[name];
    if (offsets.length > 0) sections.push([valuesId, values], [offsetsId, offsets]);
  }
  if (lists.bias.offsets.length > 0) sections.push([biasValuesId, lists.biasValues]);
  if (lists.badWords.offsets.length > 0) sections.push([cuBadWordsId, lists.cuBadWords]);
  return sections;
}

/** Views of the lists. @throws NdsError `ERR_PROTOCOL` for values without offsets, or the other way round. */
export function viewLists(views: ReadonlyMap<number, Section>): AdmitLists {
  const pair = (first: number, second: number) => {
    if (views.has(first) === views.has(second)) return;
    throw new NdsError('ERR_PROTOCOL', `Expected sections ${first} and ${second} both or neither`);
  };
  const ints = (id: number) => (views.get(id) ?? noInts) as Int32Array;
  const ragged = (name: keyof typeof raggedIds): Ragged => {
    const [valuesId, offsetsId] = raggedIds[name];
    pair(valuesId, offsetsId);
    return { values: ints(valuesId), offsets: ints(offsetsId) };
  };
  pair(raggedIds.bias[0], biasValuesId);
  pair(raggedIds.badWords[0], cuBadWordsId);
  return {
    history: ragged('history'),
    bias: ragged('bias'),
    biasValues: (views.get(biasValuesId) ?? noLists.biasValues) as Float32Array,
    allowed: ragged('allowed'),
    stops: ragged('stops'),
    badWords: ragged('badWords'),
    cuBadWords: ints(cuBadWordsId),
  };
}
