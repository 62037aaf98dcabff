/** The simulation of `ndsrun bench kv-utilization`, on workloads small enough to compute by hand. */
import t from 'tap';
import { compareAllocators, type KvLimits, type Utilization, uniformWorkload } from '../../../bin/commands/kv-utilization.ts';

const limits: KvLimits = { numKvTokens: 16, blockSize: 4, maxModelLen: 8, maxNumSeqs: 4, maxNumBatchedTokens: 4 };

type Trio = [paged: Utilization, whole: Utilization, oracle: Utilization];

t.test('lengths are uniform, from a seed', async (t) => {
  const workload = uniformWorkload(20_000, 100, 1024, 5);
  t.same(uniformWorkload(5, 100, 1024, 5), workload.slice(0, 5));
  t.notSame(uniformWorkload(5, 100, 1024, 6), workload.slice(0, 5));
  const lengths = workload.flatMap(({ numPromptTokens, numOutputTokens }) => [numPromptTokens, numOutputTokens]);
  t.equal(Math.min(...lengths), 100);
  t.equal(Math.max(...lengths), 1024);
  // The mean of 40,000 draws has a standard deviation of 925 / √12 / 200 = 1.3 tokens.
  const mean = lengths.reduce((a, b) => a + b) / lengths.length;
  t.ok(Math.abs(mean - 562) < 8, `a mean of ${mean}`);
});

t.test('one request by itself', async (t) => {
  // Steps of at most 2 tokens. Cached after each step: 2 and 3 prompt tokens, then 4 with the first of two output
  // tokens.
  const [paged, whole, oracle] = compareAllocators([{ numPromptTokens: 3, numOutputTokens: 2 }], {
    ...limits,
    maxNumSeqs: 1,
    maxNumBatchedTokens: 2,
  }) as Trio;
  const common = { meanNumSeqs: 1, held: 3 / 16, numSteps: 3, numPreemptions: 0 };
  t.match(paged, { ...common, name: 'paged, blocks of 4', heldOfReserved: 3 / 4, internalFragmentation: 1 / 16, unreserved: 12 / 16 });
  t.match(whole, { ...common, heldOfReserved: 3 / 8, internalFragmentation: 5 / 16, unreserved: 8 / 16 });
  t.match(oracle, { ...common, heldOfReserved: 3 / 5, internalFragmentation: 2 / 16, unreserved: 11 / 16 });
});

t.test('a range goes to the first gap that is wide enough, and nobody overtakes', async (t) => {
  // One step each: a prompt of one token, and one output token whose KV is never cached.
  const small = { numPromptTokens: 1, numOutputTokens: 1 };
  const long = { numPromptTokens: 1, numOutputTokens: 4 };
  // Of 8 tokens [small, long] leave one, so that the second long one waits, and the small one behind it.
  const oracle = compareAllocators([small, long, long, small], { ...limits, numKvTokens: 8, maxModelLen: 8 })[2] as Utilization;
  // Step 1: small and long (7 of 8). Step 2: long alone (5), as neither gap holds 5. Step 5: the second long one, and
  // the small one.
  t.equal(oracle.numSteps, 4 + 4);
  t.equal(oracle.meanNumSeqs, (2 + 1 + 1 + 1) / 4, 'over the four steps in which somebody waits');
  t.equal(oracle.unreserved, 1 - (7 + 5 + 5 + 5) / 4 / 8);
});

t.test('shares add up, and blocks waste least', async (t) => {
  for (const seed of [1, 2, 3]) {
    const workload = uniformWorkload(60, 5, 60, seed);
    const sizes = { numKvTokens: 1024, blockSize: 8, maxModelLen: 128, maxNumSeqs: 64, maxNumBatchedTokens: 64 };
    const done: number[] = [];
    const all = compareAllocators(workload, sizes, (numDone, total) => done.push(numDone / total)) as Trio;
    t.same(
      [...done].sort((a, b) => a - b),
      done,
      'progress goes up',
    );
    t.equal(done.at(-1), 1, 'to the end of all three');
    for (const { held, internalFragmentation, unreserved, name } of all) {
      t.ok(Math.abs(held + internalFragmentation + unreserved - 1) < 1e-12, name);
    }
    const [paged, whole, oracle] = all;
    t.ok(paged.heldOfReserved > oracle.heldOfReserved && oracle.heldOfReserved > whole.heldOfReserved, `seed ${seed}: of reserved`);
    t.ok(paged.meanNumSeqs > oracle.meanNumSeqs && oracle.meanNumSeqs > whole.meanNumSeqs, `seed ${seed}: sequences`);
    t.ok(paged.numSteps < oracle.numSteps && oracle.numSteps < whole.numSteps, `seed ${seed}: steps`);
    // Each sequence wastes less than one block.
    t.ok(paged.internalFragmentation * 1024 < paged.meanNumSeqs * 8, `seed ${seed}: less than a block each`);
  }
});
