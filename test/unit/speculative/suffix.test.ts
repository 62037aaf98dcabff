/** Suffix decoding against a scan of whole texts. */
import { test } from 'tap';
import { SuffixCache, type SuffixOptions, SuffixProposer, suffixDefaults } from '../../../rank/speculative/proposers/suffix.ts';
import { SuffixTree } from '../../../rank/speculative/proposers/suffix-tree.ts';
import { countReads } from '../../helpers/counted-reads.ts';
import { randomIntegers } from '../../helpers/random.ts';
import { HitRateReference } from '../../references/hit-rates.ts';
import { draft, predict } from '../../references/suffix.ts';

const nothing = { tokenIds: [], confidences: [] };

function options(changes: Partial<SuffixOptions>): SuffixOptions {
  return { ...suffixDefaults, ...changes };
}

test('random texts that grow by random steps: as a scan of the whole text', (t) => {
  const pick = randomIntegers(21);
  let numOffers = 0;
  let numLong = 0;
  for (let round = 0; round < 1000; round++) {
    const maxDepth = 2 + pick(6);
    const factor = [0.5, 1, 2.5, 20][pick(4)] ?? 1;
    const minTokenProb = [0, 0.1, 0.4][pick(3)] ?? 0;
    const changes = { suffixDecodingMaxTreeDepth: maxDepth, suffixDecodingMaxSpecFactor: factor, suffixDecodingMinTokenProb: minTokenProb };
    const proposer = new SuffixProposer(options(changes));
    const rates = new HitRateReference();
    const numTokenIds = 1 + pick(4);
    const tokenIds: number[] = [];
    while (tokenIds.length < 40) {
      for (let i = 1 + pick(12); i > 0; i--) {
        const prediction = predict([tokenIds], tokenIds, maxDepth);
        tokenIds.push(pick(numTokenIds));
        if (prediction !== null) rates.observe(prediction.length, prediction.share, prediction.tokenId === tokenIds.at(-1));
      }
      const most = pick(12);
      const offer = proposer.propose(tokenIds, most);
      const expected = draft([tokenIds], tokenIds, maxDepth, most, factor, minTokenProb);
      if (JSON.stringify(offer.tokenIds) !== JSON.stringify(expected.tokenIds)) {
        t.same(offer.tokenIds, expected.tokenIds, `round ${round}, ${JSON.stringify(changes)}, ${most} of ${JSON.stringify(tokenIds)}`);
        return t.end();
      }
      const confidences = expected.shares.map((share, i) => rates.confidence(expected.length + i, share));
      const isClose = offer.confidences.every((confidence, i) => Math.abs(confidence - (confidences[i] ?? Number.NaN)) < 1e-9);
      if (!isClose || offer.confidences.length !== offer.tokenIds.length) {
        t.same(offer.confidences, confidences, `round ${round}: confidences`);
        return t.end();
      }
      if (offer.tokenIds.length > 0) numOffers++;
      if (expected.length + offer.tokenIds.length > maxDepth) numLong++;
    }
  }
  t.ok(numOffers > 3000, `${numOffers} offers were compared`);
  t.ok(numLong > 1000, `${numLong} went on past the depth of the tree`);
  t.end();
});

test('random texts come and go: as a scan of those that are left, and nothing is left in the end', (t) => {
  const pick = randomIntegers(22);
  let numDrafts = 0;
  for (let round = 0; round < 1000; round++) {
    const maxDepth = 2 + pick(6);
    // Positions wrap around in every other round.
    const tree = new SuffixTree(maxDepth, 4, round % 2 === 0 ? 0 : 2 ** 31 - 1 - pick(100));
    const numTokenIds = 1 + pick(4);
    const texts: number[][] = [];
    const random = (length: number) => Array.from({ length }, () => pick(numTokenIds));
    for (let step = 0; step < 12; step++) {
      if (texts.length > 0 && pick(3) === 0) {
        tree.forgetOldest();
        texts.shift();
      } else {
        const text = random(pick(20));
        for (const tokenId of text) tree.append(tokenId);
        tree.endText();
        texts.push([...text, -1]);
      }
      const query = random(1 + pick(8));
      const most = pick(10);
      const expected = draft(texts, query, maxDepth, most, 20, 0.2);
      const match = tree.match(query);
      const drafted = match === null ? [] : tree.draft(match, most, 0.2).tokenIds;
      if ((match?.length ?? 0) !== expected.length || JSON.stringify(drafted) !== JSON.stringify(expected.tokenIds)) {
        t.same(
          { length: match?.length ?? 0, drafted },
          expected,
          `round ${round}, depth ${maxDepth}, ${JSON.stringify(query)} in ${JSON.stringify(texts)}`,
        );
        return t.end();
      }
      if (drafted.length > 0) numDrafts++;
    }
    while (tree.numTexts > 0) tree.forgetOldest();
    if (tree.numNodes !== 0) t.equal(tree.numNodes, 0, `round ${round}`);
  }
  t.ok(numDrafts > 3000, `${numDrafts} drafts were compared`);
  t.end();
});

test('the most frequent continuation is offered, of equals the one that came last', (t) => {
  const offerAfter = (tokenIds: number[]) => new SuffixProposer(options({ suffixDecodingMinTokenProb: 0 })).propose(tokenIds, 1).tokenIds;
  t.same(offerAfter([1, 2, 9, 1, 2, 8, 1, 3, 7, 1]), [2]);
  t.same(offerAfter([1, 2, 8, 1, 3, 7, 1]), [3]);
  t.end();
});

test('an offer is as long as the match allows, and ends where its path is improbable', (t) => {
  const text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3];
  const offer = (factor: number, most = 16) =>
    new SuffixProposer(options({ suffixDecodingMaxSpecFactor: factor })).propose(text, most).tokenIds;
  t.same(offer(0.5), [4]);
  t.same(offer(1), [4, 5, 6]);
  t.same(offer(1, 2), [4, 5]);
  t.same(offer(2), [4, 5, 6, 7, 8, 9]);
  t.same(offer(0), []);
  const choices = [0, 1, 0, 2, 0, 3, 0, 4, 0];
  const probable = (prob: number) => new SuffixProposer(options({ suffixDecodingMinTokenProb: prob })).propose(choices, 1).tokenIds;
  t.same(probable(0.25), [4]);
  t.same(probable(0.26), []);
  t.end();
});

test('offers nothing for what is new, and never when nothing is asked for', (t) => {
  const cache = new SuffixCache(suffixDefaults);
  cache.add([]);
  t.equal(cache.numRequests, 0);
  cache.add([1, 2, 3]);
  const proposer = new SuffixProposer(suffixDefaults, cache);
  t.same(proposer.propose([], 4), nothing);
  t.same(proposer.propose([9], 4), nothing);
  t.same(proposer.propose([9, 1], 0), nothing);
  t.same(proposer.propose([9, 1], 4).tokenIds, [2]);
  t.same(proposer.propose([9, 1, 2, 3], 4).tokenIds, [], 'the text that is known ends here');
  t.end();
});

test('of the own text and earlier outputs, the draft that promises more tokens', (t) => {
  const cache = new SuffixCache(suffixDefaults);
  cache.add([1, 2, 3, 4, 5, 6, 7, 8]);
  t.same(new SuffixProposer(suffixDefaults).propose([4, 20, 1, 2, 3, 4], 4).tokenIds, [20], 'alone: one token in common');
  t.same(new SuffixProposer(suffixDefaults, cache).propose([4, 20, 1, 2, 3, 4], 4).tokenIds, [5, 6, 7, 8]);
  t.same(new SuffixProposer(suffixDefaults, cache).propose([9, 2, 3, 4, 20, 21, 22, 9, 2, 3, 4], 4).tokenIds, [20, 21, 22, 9]);
  t.end();
});

test('the cache forgets the oldest outputs and stays within its bounds', (t) => {
  const pick = randomIntegers(23);
  const known = (cache: SuffixCache, tokenId: number) => cache.draft([tokenId], 1, suffixDefaults) !== null;
  const few = new SuffixCache(options({ suffixDecodingMaxCachedRequests: 3 }));
  for (let i = 0; i < 10; i++) few.add([i, i]);
  t.equal(few.numRequests, 3);
  t.same(
    [5, 6, 7, 8, 9].map((tokenId) => known(few, tokenId)),
    [false, false, true, true, true],
  );

  const maxNodes = 2000;
  const small = new SuffixCache(suffixDefaults, maxNodes);
  let mostNodes = 0;
  for (let i = 0; i < 300; i++) {
    // A small alphabet repeats much, which costs most nodes; some outputs exceed the capacity.
    small.add([1000 + i, ...Array.from({ length: pick(i % 50 === 0 ? 3000 : 60) }, () => pick(3)), 2000 + i]);
    mostNodes = Math.max(mostNodes, small.numNodes);
    if (!known(small, 2000 + i)) t.fail(`output ${i} is not in the cache`);
  }
  t.ok(mostNodes <= maxNodes && mostNodes > maxNodes / 3, `${mostNodes} nodes at most`);

  const none = new SuffixCache(options({ suffixDecodingMaxCachedRequests: 0 }));
  none.add([1, 2, 3]);
  t.equal(none.numNodes, 0);
  t.end();
});

test('each token costs at most a search for each depth, however the text is cut into calls', (t) => {
  const pick = randomIntegers(24);
  for (const numTokenIds of [1, 3, 1000]) {
    const tokenIds = Array.from({ length: 4000 }, () => pick(numTokenIds));
    const proposer = new SuffixProposer();
    let numReads = 0;
    let numCalls = 0;
    for (let length = 0; length <= tokenIds.length; length += 1 + pick(2)) {
      const counted = countReads(tokenIds.slice(0, length));
      proposer.propose(counted.values, 4);
      proposer.propose(counted.values, 4);
      numReads += counted.numReads();
      numCalls += 2;
    }
    t.ok(
      proposer.numLookups <= 24 * tokenIds.length,
      `${proposer.numLookups} searches for ${tokenIds.length} of ${numTokenIds} kinds of tokens`,
    );
    t.ok(numReads <= tokenIds.length + 23 * numCalls, `${numReads} reads`);
  }
  t.end();
});

test('refuses a cache of fewer than two nodes a level', (t) => {
  t.throws(() => new SuffixCache(suffixDefaults, 47), { code: 'ERR_USAGE' });
  t.end();
});
