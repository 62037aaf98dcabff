/**
 * The native accept rules: each decision against the plain reference, and the distribution of rounds against the
 * target.
 */
import { test } from 'tap';
import { randomIntegers } from '../helpers/random.ts';
import { at, isas, normals, testing } from '../helpers/testing.ts';
import { type AcceptDrafts, concat, massesOf, one, rowsOf, shares, streams, testingAccept } from '../helpers/testing-accept.ts';
import { type AcceptRule, acceptRules, limits, nextToken, numAccepted } from '../references/accept.ts';
import { gumbelNoise, keptIds, randomFilters, randomWords, scaled } from '../references/sample.ts';

const plain = { temperature: 1, topP: 1, minP: 0, topK: 0, seed: 1n, position: 0, sampleIndex: 0 };

test('a distribution has the ids that the filters keep, with their masses', async (t) => {
  const integers = randomIntegers(1);
  let compared = 0;
  for (const isa of isas) {
    for (let i = 0; i < 40; i++) {
      const n = 1 + integers(i < 35 ? 60 : 3000);
      const logits = normals(integers, n, at([0.3, 1, 6], integers(3)));
      const filters = randomFilters(integers, n);
      const { ids, margin } = keptIds(logits, filters);
      if (margin < 1e-5) continue;
      compared++;
      const x = scaled(logits, filters.temperature);
      const largest = Math.max(...x);
      const found = testingAccept.distribution({ isa, ...plain, ...filters, logits });
      const wrong = Array.from(found, Number).filter((mass, id) => {
        const expected = ids.includes(id) ? Math.exp(at(x, id) - largest) * one : 0;
        return Math.abs(mass - expected) > 1 + 1e-6 * expected;
      });
      t.same(wrong, [], `${isa} ${n} ids, ${JSON.stringify(filters)}`);
    }
    const of = (values: readonly number[], temperature: number): number[] =>
      Array.from(testingAccept.distribution({ isa, ...plain, temperature, logits: Float32Array.from(values) }), Number);
    const { NEGATIVE_INFINITY: low, POSITIVE_INFINITY: high, NaN: nan } = Number;
    t.same(of([1, 5, 5, 2], 0), [0, one, 0, 0], 'temperature 0 has the lowest of the best');
    t.same(of([nan, low, 3, nan], 0), [0, 0, one, 0]);
    t.same(of([0, nan, 0, low, -200], 1), [one, 0, one, 0, 0]);
    t.same(of([0, high, 3, high], 1), [0, one, 0, 0]);
    t.same(of([nan, low], 1), [0, 0]);
  }
  t.ok(compared > 30 * isas.length, `${compared} compared`);
});

test('a draw is the arg-max of ln(mass) + the noise at its address, and the token that sampling takes', async (t) => {
  const integers = randomIntegers(2);
  for (const isa of isas) {
    for (const [n, numDraws] of [
      [1, 2],
      [5, 20],
      [100, 20],
      [3000, 2],
    ] as const) {
      const logits = normals(integers, n, 2);
      const masses = testingAccept.distribution({ isa, ...plain, logits });
      const values = shares(masses).map(Math.log);
      for (const stream of Object.values(streams)) {
        const address = {
          seed: BigInt(integers(2 ** 32)),
          position: integers(2 ** 20),
          sampleIndex: integers(9),
          stream,
          round: integers(999),
        };
        const drawn = [...testingAccept.draw({ isa, masses, ...address, numDraws })];
        const expected = drawn.map((_, i) => {
          const noise = gumbelNoise(isa, [...values.keys()], { ...address, position: address.position + i });
          const noisy = values.map((value, id) => value + at(noise, id));
          return noisy.indexOf(Math.max(...noisy));
        });
        t.same(drawn, expected, `${isa} ${n} ids, stream ${stream}`);
        const sample = { isa, logits, ...plain, ...address, firstId: 0, numDraws };
        for (const filtered of [false, true]) t.same([...testing.sample({ ...sample, filtered }).ids], expected, `filtered: ${filtered}`);
      }
    }
  }
});

/** A round of random distributions, some rows equal and some ids filtered out, whose drafts have a positive q. */
function randomRound(integers: (below: number) => number): Pick<AcceptDrafts, 'vocabSize' | 'drafts' | 'p' | 'q'> {
  const vocabSize = 2 + integers(at([4, 40], integers(2)));
  const numDrafts = integers(6);
  const spread = at([0.2, 1, 3], integers(3));
  const likeness = at([0.1, 0.5, 2], integers(3));
  const kept = (row: Float32Array): BigUint64Array => {
    const keepAll = integers(2) === 0;
    return massesOf(Array.from(row, (x) => (keepAll || integers(3) > 0 ? Math.exp(x) : 0)).with(integers(vocabSize), 1));
  };
  const p: BigUint64Array[] = [];
  const q: BigUint64Array[] = [];
  for (let j = 0; j <= numDrafts; j++) {
    const row = normals(integers, vocabSize, spread);
    p.push(kept(row));
    const noise = normals(integers, vocabSize, likeness);
    q.push(integers(5) === 0 ? (p[j] as BigUint64Array) : kept(row.map((x, i) => x + at(noise, i))));
  }
  q.pop();
  const drafts = Int32Array.from(q, (row) => {
    const candidates = [...row.keys()].filter((id) => row[id] !== 0n);
    return at(candidates, integers(candidates.length));
  });
  return { vocabSize, drafts, p: concat(p), q: concat(q) };
}

/** The reference's decision with the coins and noise at the round's addresses; null where rounding would decide. */
function decide(isa: string, options: AcceptDrafts): { accepted: number; token: number | null } | null {
  const { rule, vocabSize, drafts, seed, position, sampleIndex, round: key } = options;
  const address = { seed, sampleIndex, round: key };
  const round = { drafts: [...drafts], p: rowsOf(options.p, vocabSize), q: rowsOf(options.q, vocabSize) };
  const coins = round.drafts.map((_, j) => {
    const words = randomWords(0, { ...address, position: position + j, stream: streams.accept });
    return (at(words, 0) + at(words, 1) / 2 ** 32) / 2 ** 32;
  });
  const limitsOfCoins = limits(rule, round);
  // Limits of 0 and 1 are exact on both sides.
  const isClose = (limit: number, j: number): boolean => limit > 0 && limit < 1 && Math.abs(limit - at(coins, j)) < 1e-9;
  if (limitsOfCoins.some(isClose)) return null;
  const accepted = numAccepted(
    rule,
    limitsOfCoins.map((limit, j) => at(coins, j) < limit),
  );
  const noise = gumbelNoise(isa, [...Array(vocabSize).keys()], { ...address, position: position + accepted, stream: streams.residual });
  const noisy = nextToken(rule, round, accepted).map((probability, id) => Math.log(probability) + at(noise, id));
  const [best = 0, next = Number.NEGATIVE_INFINITY] = [...noisy].sort((a, b) => b - a);
  return { accepted, token: best - next < 1e-4 ? null : noisy.indexOf(best) };
}

test('each decision is what the rule says, with the coins and the noise at their addresses', async (t) => {
  const seen = { decisions: 0, tokens: 0, accepted: 0, rejected: 0 };
  for (const isa of isas) {
    const integers = randomIntegers(3);
    for (let i = 0; i < 150; i++) {
      const drawn = randomRound(integers);
      const address = {
        seed: BigInt(integers(2 ** 32)) << 20n,
        position: 1 + integers(2 ** 20),
        sampleIndex: integers(9),
        round: integers(2 ** 20),
      };
      for (const rule of acceptRules) {
        const options = { rule, ...drawn, ...address, numRounds: 1 };
        const expected = decide(isa, options);
        if (expected === null) continue;
        const found = testingAccept.acceptDrafts({ isa, ...options });
        t.equal(found.numAccepted[0], expected.accepted, `${isa} ${rule}, round ${i}`);
        if (expected.token !== null) t.equal(found.tokens[0], expected.token, `${isa} ${rule}, round ${i}, its token`);
        seen.decisions++;
        if (expected.token !== null) seen.tokens++;
        if (expected.accepted === drawn.drafts.length) seen.accepted++;
        else seen.rejected++;
      }
    }
  }
  t.ok(seen.tokens > 290 * isas.length && Math.min(seen.accepted, seen.rejected) > 80 * isas.length, JSON.stringify(seen));
});

test('every instruction set decides alike', async (t) => {
  const integers = randomIntegers(4);
  const vocabSize = 3000;
  const rows = Array.from({ length: 7 }, () => massesOf(Array.from(normals(integers, vocabSize, 2), Math.exp)));
  const drafts = Int32Array.from({ length: 3 }, () => integers(vocabSize));
  for (const rule of acceptRules) {
    const options = {
      rule,
      vocabSize,
      drafts,
      q: concat(rows.slice(0, 3)),
      p: concat(rows.slice(3)),
      seed: 5n,
      position: 9,
      sampleIndex: 0,
    };
    const found = isas.map((isa) => testingAccept.acceptDrafts({ isa, ...options, round: 9, numRounds: 100 }));
    for (const [i, { numAccepted: accepted, tokens }] of found.entries()) {
      t.same(accepted, found[0]?.numAccepted, `${rule} on ${isas[i]}`);
      if (isas[i] !== 'portable') t.same(tokens, found[0]?.tokens, `${rule} on ${isas[i]}, tokens`);
    }
  }
});

/** Results of rounds at positions 1, 2, … */
const rounds = (
  isa: string,
  rule: AcceptRule,
  vocabSize: number,
  drafts: readonly number[],
  rows: { q: BigUint64Array; p: BigUint64Array },
  numRounds: number,
) =>
  testingAccept.acceptDrafts({
    isa,
    rule,
    vocabSize,
    drafts: Int32Array.from(drafts),
    ...rows,
    seed: 3n,
    position: 1,
    sampleIndex: 0,
    round: 1,
    numRounds,
  });

test('certain drafts, certain targets and no drafts at all', async (t) => {
  const p = massesOf([1, 2, 5]);
  const [a, b, c] = [massesOf([1, 0, 0]), massesOf([0, 1, 0]), massesOf([0, 0, 1])];
  for (const isa of isas) {
    for (const rule of acceptRules) {
      const none = rounds(isa, rule, 3, [], { q: new BigUint64Array(), p }, 50);
      const bonus = testingAccept.draw({
        isa,
        masses: p,
        seed: 3n,
        position: 1,
        sampleIndex: 0,
        stream: streams.residual,
        round: 1,
        numDraws: 1,
      });
      t.same(none.tokens[0], bonus[0], 'the token after all drafts is drawn from p with the noise of a residual');
      t.same(new Set(none.numAccepted), new Set([0]));
      const greedy = rounds(isa, rule, 3, [0, 1], { q: concat([a, b]), p: concat([a, b, c]) }, 5);
      t.same([...greedy.numAccepted, ...greedy.tokens], [2, 2, 2, 2, 2, 2, 2, 2, 2, 2], 'two greedy models that agree');
      const unlike = rounds(isa, rule, 3, [0, 1], { q: concat([a, b]), p: concat([a, c, b]) }, 5);
      t.same([...unlike.numAccepted, ...unlike.tokens], [1, 1, 1, 1, 1, 2, 2, 2, 2, 2], 'and that do not');
      const offered = rounds(isa, rule, 3, [2], { q: c, p: concat([p, a]) }, 400);
      t.notOk(
        offered.tokens.some((token, i) => offered.numAccepted[i] === 0 && token === 2),
        'a rejected offer does not come back',
      );
      t.ok(Math.abs(offered.numAccepted.reduce((x, y) => x + y) / 400 - 5 / 8) < 0.12, 'an offer is accepted as often as p says');
    }
  }
});

test('sums of the largest vocabulary do not overflow', async (t) => {
  const vocabSize = 2 ** 20 - 2;
  const flat = new BigUint64Array(vocabSize).fill(BigInt(one));
  const half = flat.map((mass, id) => (id % 2 === 0 ? mass : 0n));
  const rows = { q: new BigUint64Array(2 * vocabSize), p: new BigUint64Array(3 * vocabSize) };
  for (const i of [0, 1]) rows.q.set(half, i * vocabSize);
  for (const i of [0, 1, 2]) rows.p.set(flat, i * vocabSize);
  for (const rule of acceptRules) {
    const { numAccepted: accepted, tokens } = rounds(isas[0] as string, rule, vocabSize, [0, 2], rows, 12);
    // Standard: 1/2 each. Block: running products 1/2 and 1/4, so h = 1/4 ÷ (1/4 + 1/2) and 1/4.
    const chances = rule === 'block' ? [1 / 3, 1 / 4] : [1 / 2, 1 / 2];
    const expected = Array.from({ length: 12 }, (_, i) => {
      const isBelow = chances.map((chance, j) => {
        const address = { seed: 3n, position: 1 + i + j, sampleIndex: 0, stream: streams.accept, round: 1 + i };
        return at(randomWords(0, address), 0) / 2 ** 32 < chance;
      });
      return numAccepted(rule, isBelow);
    });
    t.same([...accepted], expected, rule);
    t.ok(new Set(accepted).size > 1, 'of several kinds');
    t.notOk(
      tokens.some((token, i) => at(accepted, i) < 2 && token % 2 === 0),
      'what the draft has too much of is not in the residual',
    );
  }
});

test('threads that share rows and rounds decide as one thread does', async (t) => {
  const integers = randomIntegers(9);
  const differing: string[] = [];
  let numAcceptedLengths = 0;
  for (const isa of isas) {
    for (const n of [1, 64, 130, 5000]) {
      for (const filters of [{}, { topK: 50 }, { topP: 0.7 }, { minP: 0.05, temperature: 0.7 }, { temperature: 0 }]) {
        const rows = Array.from({ length: 7 }, () => ({ isa, ...plain, ...filters, logits: normals(integers, n, 2) }));
        const one = rows.map((row) => testingAccept.distribution(row));
        const drafts = Int32Array.from(one.slice(0, 3), (row) => row.findIndex((mass) => mass > 0n));
        const round = { isa, vocabSize: n, drafts, q: concat(one.slice(0, 3)), p: concat(one.slice(3)), seed: 5n };
        const address = { position: 9, sampleIndex: 0, round: 9 };
        const draws = { isa, masses: one[0] as BigUint64Array, stream: streams.draft, numDraws: 6, seed: 5n, ...address };
        for (const numThreads of [2, 3, 7]) {
          const what = `${isa} ${n} ids, ${JSON.stringify(filters)}, ${numThreads} threads`;
          const shared = rows.map((row) => testingAccept.distribution({ ...row, numThreads }));
          if (`${shared}` !== `${one}`) differing.push(`distribution: ${what}`);
          if (`${testingAccept.draw(draws)}` !== `${testingAccept.draw({ ...draws, numThreads })}`) differing.push(`draw: ${what}`);
          for (const rule of acceptRules) {
            const options = { ...round, ...address, rule, numRounds: 8 };
            const alone = testingAccept.acceptDrafts(options);
            const together = testingAccept.acceptDrafts({ ...options, numThreads });
            numAcceptedLengths = Math.max(numAcceptedLengths, new Set(alone.numAccepted).size);
            if (`${alone.numAccepted};${alone.tokens}` !== `${together.numAccepted};${together.tokens}`) differing.push(`${rule}: ${what}`);
          }
        }
      }
    }
  }
  t.same(differing, []);
  t.ok(numAcceptedLengths > 1, 'rounds of several lengths');
});
