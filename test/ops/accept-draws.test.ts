/**
 * Rounds of native speculation draw from the target's distribution: chi-square tests over parameters, rules and K, with
 * mistakes that must be detected.
 */
import { test } from 'tap';
import { randomIntegers } from '../helpers/random.ts';
import { at, edited, isas, normals } from '../helpers/testing.ts';
import { type Speculate, streams, testingAccept } from '../helpers/testing-accept.ts';
import { type AcceptRule, acceptRules } from '../references/accept.ts';
import { distribution, type Edits, exact, type Filters, misfit, noEdits, processed } from '../references/process-logits.ts';

const vocabSize = 6;
const numTokens = 2;
const numDraws = 200_000;
/** Number of draws for mistakes with a large effect. */
const fewDraws = 40_000;
/** Normal quantile of the limit: chance exceeds it less than once in ten million times. */
const quantile = 5.2;

interface Params extends Filters, Edits {}

const none: Params = { ...noEdits, temperature: 1, topK: 0, topP: 1, minP: 0 };

const prompt = [3, 1, 4, 1, 0];
const integers = randomIntegers(11);
/** `[vocabSize][vocabSize]` logits after each token. */
const targetLogits = Array.from({ length: vocabSize }, () => normals(integers, vocabSize, 1.5));
const draftLogits = targetLogits.map((row) => {
  const noise = normals(integers, vocabSize);
  return row.map((logit, id) => logit + at(noise, id));
});

function rowAfter(logits: readonly Float32Array[], output: readonly number[]): Float32Array {
  return logits[at(output.length > 0 ? output : prompt, (output.length || prompt.length) - 1)] as Float32Array;
}

/** `[numContexts, vocabSize]` masses after every text of at most `depth` tokens, numbered as in `Speculate`. */
function contexts(isa: string, logits: readonly Float32Array[], params: Params, depth: number): BigUint64Array {
  const rows: BigUint64Array[] = [];
  let level: number[][] = [[]];
  for (let length = 0; length <= depth; length++) {
    for (const output of level) {
      const row = edited(rowAfter(logits, output), params, prompt, output);
      rows.push(testingAccept.distribution({ isa, ...params, logits: row, seed: 0n, position: 0, sampleIndex: 0 }));
    }
    level = level.flatMap((output) => Array.from({ length: vocabSize }, (_, token) => [...output, token]));
  }
  const table = new BigUint64Array(rows.length * vocabSize);
  for (const [i, row] of rows.entries()) table.set(row, i * vocabSize);
  return table;
}

/** Joint probabilities of the first two tokens under the target alone, in float64. */
function joint(params: Params): number[] {
  const after = (output: readonly number[]): number[] =>
    distribution(processed(rowAfter(targetLogits, output), params, prompt, output, exact), params);
  return after([]).flatMap((first, token) => after([token]).map((second) => first * second));
}

interface Case {
  readonly params: Partial<Params>;
  readonly numDrafts: number;
  /** Whether drafts are the likeliest tokens, without noise. */
  readonly greedyDraft?: boolean;
  readonly stopBelow?: number;
}

const penalties: Partial<Params> = { repetitionPenalty: 1.6, presencePenalty: 0.7, frequencyPenalty: 0.4 };

const cases: Readonly<Record<string, Case>> = {
  temperature: { params: { temperature: 0.6 }, numDrafts: 1 },
  'top-k': { params: { temperature: 1.5, topK: 3 }, numDrafts: 2 },
  'top-p': { params: { topP: 0.8 }, numDrafts: 3 },
  'min-p': { params: { temperature: 1.2, minP: 0.15 }, numDrafts: 2 },
  'all filters': { params: { temperature: 1.3, topK: 5, topP: 0.9, minP: 0.05 }, numDrafts: 3 },
  penalties: { params: penalties, numDrafts: 3 },
  'filters over penalties': { params: { ...penalties, temperature: 1.4, topK: 5, topP: 0.95, logitBias: [[2, 0.8]] }, numDrafts: 2 },
  'a greedy draft': { params: { ...penalties, temperature: 0.9 }, numDrafts: 3, greedyDraft: true },
  'ending after an unlikely draft': { params: { topP: 0.95 }, numDrafts: 3, stopBelow: 0.3 },
};

/** Misfit of n draws to the target; correct draws yield less than 1. */
function misfitOf(
  rule: AcceptRule,
  { params: some, numDrafts, greedyDraft, stopBelow = 0 }: Case,
  mistake: Partial<Speculate> = {},
): number {
  const isa = isas[0] as string;
  const params = { ...none, ...some };
  // The last round starts after one token, and reads one row past its drafts.
  const depth = numTokens - 1 + numDrafts;
  const q = contexts(isa, draftLogits, greedyDraft === true ? { ...params, temperature: 0 } : params, depth);
  const tokens = testingAccept.speculate({
    isa,
    rule,
    vocabSize,
    p: contexts(isa, targetLogits, params, depth),
    drawnFrom: q,
    judgedBy: q,
    numDrafts,
    numTokens,
    numDraws,
    seed: 1n << 33n,
    position: prompt.length,
    draftStream: streams.draft,
    keyedByRound: true,
    dropBelow: 0,
    stopBelow,
    ...mistake,
  });
  const pairs = Array.from({ length: tokens.length / numTokens }, (_, i) => at(tokens, 2 * i) * vocabSize + at(tokens, 2 * i + 1));
  return misfit(pairs, joint(params), quantile);
}

test('rounds draw the first two tokens as the target does', async (t) => {
  for (const [name, one] of Object.entries(cases)) {
    for (const rule of acceptRules) {
      const fit = misfitOf(rule, one);
      t.ok(fit < 1, `${rule}, ${name}: ${fit}`);
    }
  }
});

const caught = 3;

test('trap 1: a residual with the noise of the draft is caught', async (t) => {
  for (const rule of acceptRules) {
    for (const numDrafts of [1, 3]) {
      const fit = misfitOf(rule, { params: {}, numDrafts }, { draftStream: streams.residual });
      t.ok(fit > caught, `${rule}, K = ${numDrafts}: ${fit}`);
    }
  }
});

test('trap 2: random numbers keyed by the position alone are caught in block verification', async (t) => {
  for (const numDrafts of [2, 3]) {
    const fit = misfitOf('block', { params: {}, numDrafts }, { keyedByRound: false });
    t.ok(fit > caught, `K = ${numDrafts}: ${fit}`);
  }
});

test('trap 3: dropping a draft for being unlikely is caught', async (t) => {
  for (const rule of acceptRules) {
    for (const numDrafts of [1, 3]) {
      const fit = misfitOf(rule, { params: {}, numDrafts }, { dropBelow: 0.3, numDraws: fewDraws });
      t.ok(fit > caught, `${rule}, K = ${numDrafts}: ${fit}`);
    }
  }
});

test('trap 4: judging by other filters than were drawn with is caught', async (t) => {
  const filtered: Partial<Params> = { topK: 3, topP: 0.9 };
  for (const rule of acceptRules) {
    for (const numDrafts of [1, 2]) {
      const depth = numTokens - 1 + numDrafts;
      const [p, q] = [targetLogits, draftLogits].map((logits) => contexts(isas[0] as string, logits, none, depth)) as [
        BigUint64Array,
        BigUint64Array,
      ];
      for (const [name, mistake] of Object.entries({ q: { judgedBy: q }, p: { p } })) {
        const fit = misfitOf(rule, { params: filtered, numDrafts }, { ...mistake, numDraws: fewDraws });
        t.ok(fit > caught, `${rule}, K = ${numDrafts}, ${name} without its filters: ${fit}`);
      }
    }
  }
});
