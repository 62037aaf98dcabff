/** The collectives between several hosts, against references in plain TypeScript and against one host. */
import { type Test, test } from 'tap';
import { gatherCase, type Op, type Outcome, random, reduceCase, rowsCase, runGang } from '../helpers/comm-gang.ts';
import { meet, runOnHosts } from '../helpers/comm-hosts.ts';

/** [hosts, ranks of each] */
const layouts = [
  [2, 1],
  [2, 2],
  [3, 1],
  [2, 3],
  [3, 2],
] as const;

const same = (a: Uint8Array | Float32Array, b: Uint8Array | undefined): boolean =>
  b !== undefined && Buffer.compare(new Uint8Array(a.buffer, a.byteOffset, a.byteLength), b) === 0;

const gather = (counts: number[], rank: number): Op => ({ op: 'allGather', counts, data: new Uint8Array(counts[rank] as number) });

const ranks = (count: number): number[] => Array.from({ length: count }, (_, rank) => rank);

function expectError(t: Test, outcome: Outcome | undefined, code: string, ...parts: string[]): void {
  t.equal(outcome?.code, code, outcome?.message ?? 'no error');
  for (const part of parts) t.match(outcome?.message, new RegExp(part));
}

/** Scripts of random collectives for each rank, and what each op must yield. */
function randomScripts(seed: number, worldSize: number, sizes: readonly number[]) {
  const next = random(seed);
  const scripts: Op[][] = ranks(worldSize).map(() => []);
  const expected: (Uint8Array | Float32Array)[][] = [];
  const add = (ops: readonly Op[], results: readonly (Uint8Array | Float32Array)[]): void => {
    for (const [rank, op] of ops.entries()) scripts[rank]?.push(op);
    expected.push([...results]);
  };
  for (const size of sizes) {
    // Ranks without a part, too.
    const reduce = reduceCase(next, worldSize, 1 + Math.floor(next() * (worldSize + 12)), size);
    add(
      reduce.ops,
      reduce.ops.map(() => reduce.expected),
    );
    const counts = ranks(worldSize).map(() => Math.floor(next() * 1.5 * size));
    const all = gatherCase(next, counts);
    add(
      all.ops,
      all.ops.map(() => all.expected),
    );
    const numRows = size === 0 ? 0 : Math.floor(next() * 12);
    const rowBytes = Math.max(1, Math.floor(size / 2));
    const owner = Array.from({ length: numRows }, () => Math.floor(next() * worldSize));
    const rows = rowsCase(next, worldSize, numRows, rowBytes, rowBytes + Math.floor(next() * 5), owner);
    add(rows.ops, rows.expected);
  }
  return { scripts, expected };
}

for (const [numNodes, size] of layouts) {
  test(`${numNodes} hosts of ${size}: every collective, of nothing to several slots, has the bits of one host`, async (t) => {
    const worldSize = numNodes * size;
    // Floats or bytes: around a cache line, a one-shot exchange, a frame, a slot and a piece.
    const sizes = [0, 1, 7, 16, 500, 1024, 5000, 8193, 16_384, 65_537, 150_000];
    const { scripts, expected } = randomScripts(numNodes * 10 + size, worldSize, sizes);
    const results = await runOnHosts(await meet(numNodes), scripts);
    const alone = runGang(scripts);
    for (const [rank, { outcomes }] of results.entries()) {
      t.same(
        outcomes.map(({ code, message }) => (code === undefined ? '' : `${code}: ${message}`)).filter((text) => text !== ''),
        [],
      );
      const wrong = expected.flatMap((right, i) => (same(right[rank] as Uint8Array, outcomes[i]?.bytes) ? [] : [i]));
      t.same(wrong, [], `rank ${rank}: collectives that went wrong`);
      t.ok(outcomes.every(({ bytes }, i) => same(bytes as Uint8Array, alone[rank]?.outcomes[i]?.bytes)));
    }
  });
}

test('a sum of more than a piece goes in pieces', async (t) => {
  for (const [numNodes, size, numChunks, count] of [
    [2, 1, 2, 1_100_000],
    [2, 2, 9, 700_003],
    [3, 1, 9, 800_001],
  ] as const) {
    const { ops, expected } = reduceCase(random(2), numNodes * size, numChunks, count);
    const results = await runOnHosts(
      await meet(numNodes),
      ops.map((op) => [op]),
    );
    for (const { outcomes } of results) t.ok(same(expected, outcomes[0]?.bytes), outcomes[0]?.message ?? `${numNodes} hosts of ${size}`);
  }
});

test('hundreds of collectives in a row keep their data apart', async (t) => {
  for (const [numNodes, size] of [
    [2, 2],
    [3, 1],
  ] as const) {
    const next = random(numNodes);
    const sizes = Array.from({ length: 80 }, () => Math.floor(next() ** 4 * 6000) + 1);
    const { scripts, expected } = randomScripts(numNodes, numNodes * size, sizes);
    const results = await runOnHosts(await meet(numNodes), scripts);
    const wrong = results.flatMap(({ outcomes }, rank) =>
      expected.flatMap((right, i) => (same(right[rank] as Uint8Array, outcomes[i]?.bytes) ? [] : [[rank, i]])),
    );
    t.same(wrong, [], `${numNodes} hosts of ${size}: [rank, collective] that went wrong`);
  }
});

test('a rank that does not come is named on every host, with the step and the collective', async (t) => {
  const counts = [4, 4, 4, 4];
  const late = (rank: number): Op[] => [gather(counts, rank), { op: 'setStep', step: 7 }];
  const reduce = reduceCase(random(5), 4, 4, 2000).ops;
  // The first rank of a host, then the second.
  for (const absent of [2, 3]) {
    const scripts = ranks(4).map((rank) => [...late(rank), ...(rank === absent ? [] : [reduce[rank] as Op])]);
    const results = await runOnHosts(await meet(2), scripts, { stepTimeoutMs: 2000 });
    for (const rank of ranks(4).filter((r) => r !== absent)) {
      const error = results[rank]?.outcomes[2];
      expectError(t, error, 'ERR_STEP_TIMEOUT', 'step 7', 'all-reduce 2 of 8000 bytes', absent === 2 ? '(rank 2|ranks 2-3)' : 'rank 3');
    }
  }
});

test('the first meeting has its own timeout, until the first step', async (t) => {
  const [result] = await runOnHosts(await meet(2), [[gather([4, 4], 0)], []], { stepTimeoutMs: 100_000, startupTimeoutMs: 100 });
  expectError(t, result?.outcomes[0], 'ERR_STEP_TIMEOUT', 'loading', 'rank 0 waited 0.', 's for rank 1 \\(node 1, 127.0.0.1\\)');
});

test('abort from another thread ends a collective on every host, and every later call', async (t) => {
  for (let i = 0; i < 10; i++) {
    // A leader by a rank of its host, on either host, and a rank by itself.
    for (const [first, aborted] of [
      [1, 0],
      [3, 2],
      [1, 1],
    ] as const) {
      const counts = [4, 4, 4, 4];
      const scripts = ranks(4).map((rank): Op[] => [gather(counts, rank), gather(counts, rank), gather(counts, rank)]);
      scripts[first] = [gather(counts, first), { op: 'abort', rank: aborted }];
      const results = await runOnHosts(await meet(2), scripts);
      for (const rank of ranks(4).filter((r) => r !== first)) {
        // The abort may precede the end of the first collective.
        for (const outcome of results[rank]?.outcomes.slice(1) ?? []) expectError(t, outcome, 'ERR_CLOSED', 'rank');
      }
    }
  }
});

test('an abort between collectives reaches a host that waits', async (t) => {
  const counts = [4, 4, 4];
  const [, , third] = await runOnHosts(await meet(3), [
    [gather(counts, 0), { op: 'abort', rank: 0 }],
    [gather(counts, 1), gather(counts, 1)],
    [gather(counts, 2), gather(counts, 2)],
  ]);
  expectError(t, third?.outcomes[1], 'ERR_CLOSED', 'left');
});

test('ranks in different collectives notice on every host', async (t) => {
  const counts = [64, 64, 64, 64];
  const zeros = (count: number): Op => ({
    op: 'allReduce',
    count,
    numRoots: [1, 1, 1, 1],
    merges: [0, 1, 1, 1],
    data: new Float32Array(count),
  });
  const rows: Op = { op: 'exchangeRows', numRows: 4, rowBytes: 4, stride: 4, owner: [0, 1, 2, 3], data: new Uint8Array(16) };
  const cases: [string, Op, Op, string][] = [
    ['kinds', gather(counts, 0), zeros(64), 'all-reduce 2 of 256 bytes'],
    ['sizes', zeros(32), zeros(33), 'all-reduce 2 of 132 bytes'],
    ['large sizes', zeros(90), zeros(90_000), 'all-reduce 2 of 360000 bytes'],
    ['owners', rows, { ...rows, owner: [3, 2, 1, 0] }, 'spread differently'],
  ];
  for (const [name, usual, other, text] of cases) {
    const start = (rank: number): Op[] => [gather(counts, rank), { op: 'setStep', step: 3 }];
    const scripts = ranks(4).map((rank) => [...start(rank), rank < 2 ? usual : other]);
    const results = await runOnHosts(await meet(2), scripts);
    for (const { outcomes } of results) expectError(t, outcomes[2], 'ERR_MISMATCH', 'step 3');
    for (const rank of [0, 1]) t.match(results[rank]?.outcomes[2]?.message, new RegExp(text), name);
    for (const rank of [2, 3])
      t.match(results[rank]?.outcomes[2]?.message, new RegExp(name === 'owners' ? text : 'all-(gather|reduce) 2 of'), name);
  }
});

test('one rank in another collective than its host ends it on the other host too', async (t) => {
  const counts = [4, 4, 4, 4];
  const scripts = ranks(4).map((rank) => [gather(counts, rank), gather(rank === 1 ? [4, 4, 4, 5] : counts, rank)]);
  for (const { outcomes } of await runOnHosts(await meet(2), scripts)) expectError(t, outcomes[1], 'ERR_MISMATCH', 'all-gather 2');
});

test('hosts at different steps notice', async (t) => {
  const counts = [4, 4];
  const scripts = ranks(2).map((rank): Op[] => [{ op: 'setStep', step: 5 + rank }, gather(counts, rank)]);
  const results = await runOnHosts(await meet(2), scripts);
  for (const [rank, { outcomes }] of results.entries()) expectError(t, outcomes[1], 'ERR_MISMATCH', `step ${5 + rank}`, `step ${6 - rank}`);
});

test('communicators follow each other on one mesh', async (t) => {
  const next = random(6);
  const scripts: Op[][] = [[], [], [], []];
  const expected: Float32Array[] = [];
  for (let i = 0; i < 10; i++) {
    const reduce = reduceCase(next, 4, 9, 40 * 3 ** (i % 6));
    expected.push(reduce.expected);
    for (const [rank, op] of reduce.ops.entries()) scripts[rank]?.push(op, { op: 'reopen' });
  }
  const meshes = await meet(2);
  for (const { outcomes } of await runOnHosts(meshes, scripts)) {
    for (const [i, sum] of expected.entries()) t.ok(same(sum, outcomes[2 * i]?.bytes), outcomes[2 * i]?.message ?? `communicator ${i}`);
  }
});

test('a new communicator works after one that was left in the middle of a collective', async (t) => {
  const next = random(7);
  const lost = reduceCase(next, 4, 4, 1_200_000).ops;
  const { ops, expected } = reduceCase(next, 4, 4, 3000);
  const { ops: more, expected: moreExpected } = reduceCase(next, 4, 9, 77_777);
  for (const absent of [1, 2]) {
    const scripts = ranks(4).map((rank) => [
      gather([4, 4, 4, 4], rank),
      rank === absent ? ({ op: 'abort', rank: absent } as const) : (lost[rank] as Op),
      { op: 'reopen' } as const,
      ops[rank] as Op,
      more[rank] as Op,
    ]);
    const results = await runOnHosts(await meet(2), scripts);
    for (const [rank, { outcomes }] of results.entries()) {
      if (rank !== absent) expectError(t, outcomes[1], 'ERR_CLOSED');
      t.ok(same(expected, outcomes[3]?.bytes), outcomes[3]?.message ?? 'the first sum after it');
      t.ok(same(moreExpected, outcomes[4]?.bytes), outcomes[4]?.message ?? 'the second');
    }
  }
});

test('bytes are counted, those to other hosts too', async (t) => {
  const reduce = reduceCase(random(8), 4, 8, 100);
  const counts = [40, 7, 0, 1];
  const results = await runOnHosts(
    await meet(2),
    ranks(4).map((rank) => [reduce.ops[rank] as Op, gather(counts, rank)]),
  );
  // A leader sends both partial sums of its host, 400 bytes each, and shares the sum; another rank shows its own.
  t.same(
    results.map(({ allReduceBytes }) => allReduceBytes),
    [1200, 400, 1200, 400],
  );
  for (const { exchangedBytes, allReduceBytes } of results) t.ok(exchangedBytes >= allReduceBytes);
});

test('ranks of all hosts find out at the end of a step that they differ', async (t) => {
  const agree = (planHash: number, outputHash: number): Op => ({ op: 'agree', step: 5, planHash, outputHash });
  const results = await runOnHosts(await meet(2), [[agree(1, 2)], [agree(1, 2)], [agree(1, 3)], [agree(1, 2)]]);
  for (const { outcomes } of results) {
    t.match(outcomes[0], { code: 'ERR_MISMATCH', message: /same tokens on every rank .* on ranks 0, 1, 3 and 0{15}3 on rank 2$/ });
  }
});
