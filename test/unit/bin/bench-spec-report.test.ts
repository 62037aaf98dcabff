/** The summary of rounds by `ndsrun bench spec`. */
import t from 'tap';
import { acceptanceOf, type Measured, summarize, tables } from '../../../bin/commands/bench-spec-report.ts';

/** Two steps of 2 drafts (2 and 1 accepted), one of 1 (rejected), one without. */
const stats = {
  numDraftTokens: 5,
  numAcceptedTokens: 3,
  numAcceptedTokensPerPos: [2, 1],
  numStepsByNumDrafts: [1, 1, 2],
};
const round: Measured = {
  ...{ rule: 'coupled', k: 2, temperature: 0, batchSize: 1, numTokens: 100 },
  ...{ seconds: 2, plainSeconds: 4, speculation: [stats], identicalTokens: true },
};

t.test('a position is drafted by the steps that drafted so far', async (t) => {
  t.same(acceptanceOf(stats), { acceptanceRate: 3 / 5, acceptanceRatePerPos: [2 / 3, 1 / 2] });
  const none = { numDraftTokens: 0, numAcceptedTokens: 0, numAcceptedTokensPerPos: [], numStepsByNumDrafts: [3] };
  t.same(acceptanceOf(none), { acceptanceRate: null, acceptanceRatePerPos: [] });
});

t.test('medians of times, sums of drafts', async (t) => {
  const rounds = [round, { ...round, seconds: 1, plainSeconds: 6 }, { ...round, seconds: 10, plainSeconds: 10 }];
  t.same(summarize(rounds), {
    ...{ rule: 'coupled', k: 2, temperature: 0, batchSize: 1 },
    ...{ speedups: [2, 6, 1], speedup: 2, tokensPerSecond: 50, plainTokensPerSecond: 100 / 6 },
    ...{ numDraftTokens: 15, acceptanceRate: 3 / 5, acceptanceRatePerPos: [2 / 3, 1 / 2], tokensPerStep: 1 + 3 / 4, draftsPerStep: 5 / 4 },
    identicalTokens: true,
  });
});

t.test('tokens that differ in one round differ', async (t) => {
  t.equal(summarize([round, { ...round, identicalTokens: false }, round]).identicalTokens, false);
  t.equal(summarize([{ ...round, rule: 'block', identicalTokens: null }]).identicalTokens, null);
});

t.test('a table for each temperature, columns for each batch size', async (t) => {
  const results = [0, 1].flatMap((temperature) =>
    [2, null].flatMap((k) => [1, 8].map((batchSize) => summarize([{ ...round, temperature, k, batchSize, plainSeconds: 4 * batchSize }]))),
  );
  t.same(tables(results).slice(0, 5), [
    '',
    'temperature 0; plain decoding, in tokens/s: 25 at batch 1, 3 at batch 8',
    'rule            K  batch 1  tokens/step  batch 8  tokens/step  accepted   by position, in %',
    'coupled         2    2.00x         1.75   16.00x         1.75      60 %   67 50',
    'coupled  adaptive    2.00x         1.75   16.00x         1.75      60 %   67 50',
  ]);
  t.equal(tables(results).length, 10);
});

t.test('a line shows the acceptance of the batch size with most drafts', async (t) => {
  const some = { numDraftTokens: 1, numAcceptedTokens: 0, numAcceptedTokensPerPos: [0], numStepsByNumDrafts: [9, 1] };
  const shown = [
    [stats, some],
    [some, stats],
  ].map((both) => tables(both.map((drafts, i) => summarize([{ ...round, batchSize: i + 1, speculation: [drafts] }])))[3]);
  for (const line of shown) t.match(line, / 60 % {3}67 50$/);
});
