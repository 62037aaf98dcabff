/**
 * Exactness of the accept rules by enumeration of every draft, coin and residual, and the effect of each known mistake.
 */
import { test } from 'tap';
import { enumerateDraws } from '../../helpers/enumerate-draws.ts';
import { type Model, type Play, playRound, playRounds } from '../../helpers/played-rounds.ts';
import { randomIntegers } from '../../helpers/random.ts';
import { at } from '../../helpers/testing.ts';
import { acceptRules, type Probabilities } from '../../references/accept.ts';

/** All texts of `numTokens` tokens with their probabilities. */
function joint(p: Model, numTokens: number, text: readonly number[] = []): Map<string, number> {
  if (text.length === numTokens) return new Map([[text.join(), 1]]);
  const result = new Map<string, number>();
  for (const [token, probability] of p(text).entries()) {
    for (const [whole, rest] of joint(p, numTokens, [...text, token])) result.set(whole, probability * rest);
  }
  return result;
}

/** Largest difference between two joints. */
function distance(a: ReadonlyMap<string, number>, b: ReadonlyMap<string, number>): number {
  return Math.max(...[...new Set([...a.keys(), ...b.keys()])].map((text) => Math.abs((a.get(text) ?? 0) - (b.get(text) ?? 0))));
}

/** Distance of K + 1 tokens from the target's: those of one round, completed by the target where there are fewer. */
function errorOfRound(play: Play): number {
  const emitted = new Map<string, { tokens: number[]; probability: number }>();
  enumerateDraws(
    (draws) => playRound(draws, play, []),
    (tokens, probability) => {
      const entry = emitted.get(tokens.join()) ?? { tokens, probability: 0 };
      emitted.set(tokens.join(), { tokens, probability: entry.probability + probability });
    },
  );
  const found = new Map<string, number>();
  for (const { tokens, probability } of emitted.values()) {
    for (const [text, rest] of joint(play.p, play.numDrafts + 1, tokens)) found.set(text, (found.get(text) ?? 0) + probability * rest);
  }
  return distance(found, joint(play.p, play.numDrafts + 1));
}

/** Distance of `numTokens` tokens from the target's, of as many rounds as they take. */
function errorOfRounds(play: Play, numTokens: number): number {
  const found = new Map<string, number>();
  enumerateDraws(
    (draws) => playRounds(draws, play, numTokens).join(),
    (text, probability) => found.set(text, (found.get(text) ?? 0) + probability),
  );
  return distance(found, joint(play.p, numTokens));
}

function expectedAccepted(play: Play): number {
  let expected = 0;
  enumerateDraws(
    (draws) => playRound(draws, play, []).length - 1,
    (accepted, probability) => {
      expected += accepted * probability;
    },
  );
  return expected;
}

const normalized = (weights: readonly number[]): Probabilities => {
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / total);
};

const fixed =
  (...probabilities: number[]): Model =>
  () =>
    probabilities;

/** Random distributions that depend on the whole text; tokens that `keep` excludes have probability 0. */
function randomModel(seed: number, vocabSize: number, keep: (token: number) => boolean = () => true): Model {
  const made = new Map<string, Probabilities>();
  return (text) => {
    const key = text.join();
    let probabilities = made.get(key);
    if (probabilities === undefined) {
      const integers = randomIntegers(text.reduce((hash, token) => Math.imul(hash, 31) + token + 1, seed));
      probabilities = normalized(Array.from({ length: vocabSize }, (_, token) => (keep(token) ? 1 + integers(97) ** 2 : 0)));
      made.set(key, probabilities);
    }
    return probabilities;
  };
}

/** All mass on the likeliest token: a deterministic draft. */
const greedy =
  (model: Model): Model =>
  (text) => {
    const probabilities = model(text);
    const best = probabilities.indexOf(Math.max(...probabilities));
    return probabilities.map((_, token) => (token === best ? 1 : 0));
  };

/** The `k` likeliest tokens, renormalized. */
const topK =
  (model: Model, k: number): Model =>
  (text) => {
    const probabilities = model(text);
    const least = at(
      [...probabilities].sort((a, b) => b - a),
      k - 1,
    );
    return normalized(probabilities.map((p) => (p >= least ? p : 0)));
  };

interface Pair {
  readonly p: Model;
  readonly q: Model;
}

/** Targets and drafts over a vocabulary of `vocabSize` tokens. */
function pairs(vocabSize: number): Readonly<Record<string, Pair>> {
  const p = randomModel(1, vocabSize);
  const q = randomModel(2, vocabSize);
  const isFirst = (token: number): boolean => token < vocabSize / 2;
  return {
    'depending on the text': { p, q },
    'without memory': { p: fixed(...p([])), q: fixed(...q([])) },
    'the same': { p, q: p },
    'zeros in p': { p: randomModel(3, vocabSize, (token) => token !== 0), q },
    'zeros in q': { p, q: randomModel(4, vocabSize, (token) => token !== vocabSize - 1) },
    disjoint: { p: randomModel(5, vocabSize, isFirst), q: randomModel(6, vocabSize, (token) => !isFirst(token)) },
    'the same, but for the first token': { p, q: (text) => (text.length === 0 ? q(text) : p(text)) },
    'the same first token only': { p, q: (text) => (text.length === 0 ? p(text) : q(text)) },
    'a greedy draft': { p, q: greedy(q) },
    'a greedy target': { p: greedy(p), q },
    'both filtered': { p: topK(p, Math.max(1, vocabSize - 1)), q: topK(q, Math.max(1, vocabSize - 2)) },
  };
}

const sizes = [
  [2, 1],
  [2, 2],
  [2, 3],
  [3, 3],
  [5, 1],
  [5, 2],
] as const;

const exact = 1e-12;

test('the tokens of a round, continued by the target, follow the target', async (t) => {
  for (const rule of acceptRules) {
    for (const [vocabSize, numDrafts] of sizes) {
      for (const [name, pair] of Object.entries(pairs(vocabSize))) {
        const error = errorOfRound({ rule, numDrafts, ...pair });
        t.ok(error < exact, `${rule}, ${name}, ${vocabSize} ids, K = ${numDrafts}: ${error}`);
      }
    }
    const { p, q } = { p: randomModel(7, 5), q: randomModel(8, 5) };
    const error = errorOfRound({ rule, numDrafts: 3, p, q });
    t.ok(error < exact, `${rule}, 5 ids, K = 3: ${error}`);
  }
});

/** Small enough to enumerate three tokens of up to three rounds. */
const pair = { p: fixed(0.3, 0.7), q: fixed(0.65, 0.35) };
const textPair = { p: randomModel(21, 2), q: randomModel(22, 2) };

test('rounds one after the other follow the target, whatever K was made of', async (t) => {
  for (const rule of acceptRules) {
    for (const numDrafts of [1, 2, 3]) {
      for (const [name, { p, q }] of Object.entries({ 'without memory': pair, 'depending on the text': textPair })) {
        const error = errorOfRounds({ rule, numDrafts, p, q }, 3);
        t.ok(error < exact, `${rule}, ${name}, K = ${numDrafts}: ${error}`);
        const stopping = errorOfRounds({ rule, numDrafts, p, q, stopBelow: 0.5 }, 3);
        t.ok(stopping < exact, `${rule}, ${name}, at most ${numDrafts}, ending after an unlikely one: ${stopping}`);
      }
    }
  }
});

const broken = 1e-3;

test('trap 1: a residual that reuses the noise of the draft is caught', async (t) => {
  for (const rule of acceptRules) {
    for (const numDrafts of [1, 2]) {
      const { p, q } = { p: randomModel(11, 4), q: randomModel(12, 4) };
      const error = errorOfRound({ rule, numDrafts, p, q, residualIsDraft: true });
      t.ok(error > broken, `${rule}, K = ${numDrafts}: ${error}`);
    }
  }
});

test('trap 2: numbers keyed by the position alone are caught in block verification', async (t) => {
  for (const { p, q } of [pair, textPair]) {
    const error = errorOfRounds({ rule: 'block', numDrafts: 2, p, q, keyedByPosition: true }, 3);
    t.ok(error > broken, `block: ${error}`);
    // The standard rule reads nothing past the draft that it rejects.
    t.ok(errorOfRounds({ rule: 'standard', numDrafts: 2, p, q, keyedByPosition: true }, 3) < exact);
  }
});

test('trap 3: dropping a draft for being unlikely is caught', async (t) => {
  for (const rule of acceptRules) {
    for (const numDrafts of [1, 2, 3]) {
      const error = errorOfRound({ rule, numDrafts, ...pair, dropBelow: 0.5 });
      t.ok(error > broken, `${rule}, K = ${numDrafts}: ${error}`);
    }
  }
});

test('trap 4: judging by other filters than the draft or the request has is caught', async (t) => {
  const p = randomModel(13, 4);
  const q = randomModel(14, 4);
  for (const rule of acceptRules) {
    for (const numDrafts of [1, 2]) {
      const right = { rule, numDrafts, p: topK(p, 2), q: topK(q, 3) };
      t.ok(errorOfRound(right) < exact);
      for (const [name, wrong] of Object.entries({ q: { judgedByQ: q }, p: { judgedByP: p } })) {
        const error = errorOfRound({ ...right, ...wrong });
        t.ok(error > broken, `${rule}, K = ${numDrafts}, ${name} without its filter: ${error}`);
      }
    }
  }
});

test('block verification accepts at least as much as the standard rule', async (t) => {
  for (const [vocabSize, numDrafts] of sizes) {
    for (const [name, { p, q }] of Object.entries(pairs(vocabSize))) {
      const [standard, block] = acceptRules.map((rule) => expectedAccepted({ rule, numDrafts, p, q })) as [number, number];
      const what = `${name}, ${vocabSize} ids, K = ${numDrafts}: ${block} against ${standard}`;
      t.ok(block > standard - exact, what);
      if (numDrafts === 1 || name === 'a greedy draft') t.ok(Math.abs(block - standard) < exact, `equal: ${what}`);
      if (name === 'the same')
        t.same(
          [standard, block].map((value) => Math.round(value * 1e12) / 1e12),
          [numDrafts, numDrafts],
          what,
        );
      if (name === 'disjoint') t.same([standard, block], [0, 0], what);
    }
  }
});

test('the example of the paper: 10 / 9 and 11 / 9 tokens of two', async (t) => {
  const example = { numDrafts: 2, p: fixed(1 / 3, 2 / 3), q: fixed(2 / 3, 1 / 3) };
  t.ok(Math.abs(expectedAccepted({ ...example, rule: 'standard' }) - 10 / 9) < exact);
  t.ok(Math.abs(expectedAccepted({ ...example, rule: 'block' }) - 11 / 9) < exact);
});
