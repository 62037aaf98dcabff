/** Optional parameters of admitted slots, as ragged lists over flat arrays. */
import { NdsError } from './errors.ts';
import type { Section, SectionClass } from './sections.ts';

/** List i is `values[offsets[i] … offsets[i + 1])`. Both are empty when all lists are. */
export interface Ragged {
  readonly values: Int32Array;
  /** `[numLists + 1]` prefix sum of list lengths, or empty. */
  readonly offsets: Int32Array;
}

/** One list per admitted slot, empty if not needed. */
export interface AdmitLists {
  /** Known tokens of the sequence, prompt then output, for penalties, bad words and draft models. */
  readonly history: Ragged;
  /** Tokens with a logit bias. */
  readonly bias: Ragged;
  /** `[bias.values.length]` the biases. */
  readonly biasValues: Float32Array;
  /** The only tokens that may be drawn; empty = all. */
  readonly allowed: Ragged;
  /** Tokens masked until `minTokens` are generated. */
  readonly stops: Ragged;
  /** Tokens of each bad word, slot by slot. */
  readonly badWords: Ragged;
  /** `[numAdmitted + 1]` prefix sum of bad words per slot, or empty. */
  readonly cuBadWords: Int32Array;
}

/** Section ids of values and offsets, as in `native/core/plan/plan_view.cc`. */
const raggedIds = { history: [32, 33], bias: [34, 36], allowed: [37, 38], stops: [39, 40], badWords: [41, 42] } as const;
const biasValuesId = 35;
const cuBadWordsId = 43;

const raggedNames = Object.keys(raggedIds) as (keyof typeof raggedIds)[];
const noInts = new Int32Array(0);

/** No lists. */
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

/** Concatenates lists; both arrays are empty when all lists are. */
export function toRagged(lists: readonly (readonly number[])[]): Ragged {
  if (lists.every((list) => list.length === 0)) return { values: noInts, offsets: noInts };
  const offsets = new Int32Array(lists.length + 1);
  lists.forEach((list, i) => {
    offsets[i + 1] = (offsets[i] as number) + list.length;
  });
  return { values: Int32Array.from(lists.flat()), offsets };
}

/** Sections of the non-empty lists. */
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

/** Views of the lists. @throws NdsError `ERR_PROTOCOL` for values without offsets, or the reverse. */
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
