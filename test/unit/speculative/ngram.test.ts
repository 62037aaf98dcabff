/** Prompt lookup against a scan of the whole text. */
import { test } from 'tap';
import { NgramProposer } from '../../../rank/speculative/proposers/ngram.ts';
import { countReads } from '../../helpers/counted-reads.ts';
import { randomIntegers } from '../../helpers/random.ts';
import { HitRateReference } from '../../references/hit-rates.ts';

/** Last token of the latest earlier occurrence of the longest n-gram that the first `length` tokens end with. */
function scan(tokenIds: number[], length: number, min: number, max: number): { source: number; n: number } | null {
  for (let n = Math.min(max, length); n >= min; n--) {
    for (let source = length - 2; source >= n - 1; source--) {
      const earlier = tokenIds.slice(source - n + 1, source + 1);
      if (earlier.every((tokenId, i) => tokenId === tokenIds[length - n + i])) return { source, n };
    }
  }
  return null;
}

/** The definition, from the start of the text: follow an occurrence while it is right, else find the longest n-gram. */
function reference(tokenIds: number[], min: number, max: number, most: number): { tokenIds: number[]; confidences: number[] } {
  const rates = new HitRateReference();
  let match: { source: number; n: number } | null = null;
  for (let length = 1; length <= tokenIds.length; length++) {
    const isHit: boolean = match !== null && tokenIds[match.source + 1] === tokenIds[length - 1];
    if (match !== null) rates.observe(match.n, 1, isHit);
    match = match !== null && isHit ? { source: match.source + 1, n: match.n + 1 } : scan(tokenIds, length, min, max);
  }
  if (match === null) return { tokenIds: [], confidences: [] };
  const text = [...tokenIds];
  for (let i = 0; i < most; i++) text.push(text[match.source + 1 + i] ?? -1);
  const { n } = match;
  return { tokenIds: text.slice(tokenIds.length), confidences: Array.from({ length: most }, (_, i) => rates.confidence(n + i, 1)) };
}

test('random texts that grow by random steps: as a scan of the whole text', (t) => {
  const pick = randomIntegers(11);
  let numOffers = 0;
  for (let round = 0; round < 2000; round++) {
    const promptLookupMin = 1 + pick(3);
    const promptLookupMax = promptLookupMin + pick(4);
    const proposer = new NgramProposer({ promptLookupMin, promptLookupMax });
    const numTokenIds = 1 + pick(5);
    const tokenIds: number[] = [];
    while (tokenIds.length < 50) {
      const most = pick(7);
      const offer = proposer.propose(tokenIds, most);
      const expected = reference(tokenIds, promptLookupMin, promptLookupMax, most);
      if (JSON.stringify(offer.tokenIds) !== JSON.stringify(expected.tokenIds)) {
        t.same(
          offer.tokenIds,
          expected.tokenIds,
          `round ${round}, ${promptLookupMin} to ${promptLookupMax} of ${JSON.stringify(tokenIds)}`,
        );
        return t.end();
      }
      const isClose = offer.confidences.every((confidence, i) => Math.abs(confidence - (expected.confidences[i] ?? Number.NaN)) < 1e-9);
      if (!isClose || offer.confidences.length !== offer.tokenIds.length) {
        t.same(offer.confidences, expected.confidences, `round ${round}: confidences`);
        return t.end();
      }
      if (offer.tokenIds.length > 0) numOffers++;
      for (let i = 1 + pick(12); i > 0; i--) tokenIds.push(pick(numTokenIds));
    }
  }
  t.ok(numOffers > 5000, `${numOffers} offers were compared`);
  t.end();
});

test('a text of one period is offered on and on', (t) => {
  const proposer = new NgramProposer({ promptLookupMin: 2, promptLookupMax: 5 });
  t.same(proposer.propose([1, 2, 3, 1, 2], 8).tokenIds, [3, 1, 2, 3, 1, 2, 3, 1]);
  t.same(new NgramProposer({ promptLookupMin: 1, promptLookupMax: 1 }).propose([7, 7], 3).tokenIds, [7, 7, 7]);
  t.end();
});

test('stays with the occurrence that was right, though a later one ends alike', (t) => {
  const proposer = new NgramProposer({ promptLookupMin: 2, promptLookupMax: 2 });
  // 1 2 3 4 5 is being copied, although 3 4 6 came later.
  t.same(proposer.propose([1, 2, 3, 4, 5, 3, 4, 6, 0, 1, 2], 1).tokenIds, [3]);
  t.same(proposer.propose([1, 2, 3, 4, 5, 3, 4, 6, 0, 1, 2, 3, 4], 1).tokenIds, [5]);
  t.same(new NgramProposer({ promptLookupMin: 2, promptLookupMax: 2 }).propose([1, 2, 3, 4, 5, 3, 4, 6, 0, 3, 4], 1).tokenIds, [6]);
  t.end();
});

test('offers nothing without an n-gram, and never when nothing is asked for', (t) => {
  const proposer = new NgramProposer({ promptLookupMin: 2, promptLookupMax: 3 });
  for (const tokenIds of [[], [5], [5, 5], [5, 5, 6], [5, 5, 6, 5]])
    t.same(proposer.propose(tokenIds, 4), { tokenIds: [], confidences: [] });
  t.same(proposer.propose([5, 5, 6, 5, 5], 0), { tokenIds: [], confidences: [] });
  t.same(proposer.propose([5, 5, 6, 5, 5], 2).tokenIds, [6, 5]);
  t.end();
});

test('confidence rises with predictions that come true and falls with those that do not', (t) => {
  const offerAfter = (tokenIds: number[]) =>
    new NgramProposer({ promptLookupMin: 1, promptLookupMax: 1 }).propose(tokenIds, 1).confidences[0] ?? 0;
  const periodic = Array.from({ length: 100 }, (_, i) => i % 10);
  // Each 0 is followed by a new token.
  const misleading = Array.from({ length: 101 }, (_, i) => (i % 2 === 0 ? 0 : i));
  t.ok(offerAfter(periodic) > 0.9);
  t.ok(offerAfter(misleading) < 0.1);
  t.ok(offerAfter(misleading) > 0);
  t.end();
});

test('each token is looked at a bounded number of times, however the text is cut into calls', (t) => {
  const pick = randomIntegers(5);
  for (const numTokenIds of [1, 3, 1000]) {
    const tokenIds = Array.from({ length: 4000 }, () => pick(numTokenIds));
    const proposer = new NgramProposer({ promptLookupMin: 2, promptLookupMax: 5 });
    let numReads = 0;
    for (let length = 0; length <= tokenIds.length; length += 1 + pick(2)) {
      const counted = countReads(tokenIds.slice(0, length));
      proposer.propose(counted.values, 4);
      numReads += counted.numReads();
    }
    // 4 lengths of at most 5 tokens are hashed and compared with one or two entries; growing the table doubles that. A
    // scan per call would take 5 million reads.
    t.ok(numReads < 100 * tokenIds.length, `${numReads} reads for ${tokenIds.length} of ${numTokenIds} kinds of tokens`);
  }
  t.end();
});
