/** The collectives over shared memory, against references in plain TypeScript. */
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import {
  gatherCase,
  type Op,
  type Outcome,
  random,
  randomBytes,
  randomFloats,
  reduceCase,
  rowsCase,
  runGang,
  testing,
} from '../helpers/comm-gang.ts';

const same = (a: Uint8Array | Float32Array, b: Uint8Array | undefined): boolean =>
  b !== undefined && Buffer.compare(new Uint8Array(a.buffer, a.byteOffset, a.byteLength), b) === 0;

const gather = (counts: number[], rank: number): Op => ({ op: 'allGather', counts, data: new Uint8Array(counts[rank] as number) });

function expectError(t: Test, outcome: Outcome | undefined, code: string, ...parts: string[]): void {
  t.equal(outcome?.code, code, outcome?.message ?? 'no error');
  for (const part of parts) t.match(outcome?.message, part);
}

test('all-reduce gives every rank the bits of the one-rank tree', async (t) => {
  const next = random(1);
  for (const worldSize of [1, 2, 3, 4, 5, 9, 16]) {
    for (const numChunks of new Set([worldSize, 9, 16, 25].filter((chunks) => chunks >= worldSize))) {
      const scripts: Op[][] = Array.from({ length: worldSize }, () => []);
      const counts = [1, 7, 64, 1024, 1025, 5000];
      const expected = counts.map((count) => {
        const reduce = reduceCase(next, worldSize, numChunks, count);
        for (const [rank, op] of reduce.ops.entries()) scripts[rank]?.push(op);
        return reduce.expected;
      });
      const results = runGang(scripts);
      const right = results.every((result) => expected.every((sum, i) => same(sum, result.outcomes[i]?.bytes)));
      t.ok(right, `${worldSize} ranks, ${numChunks} chunks`);
    }
  }
});

test('all-reduce of more than a slot goes in pieces', async (t) => {
  const next = random(2);
  for (const [worldSize, numChunks, count] of [
    [2, 2, 65_536],
    [2, 2, 65_537],
    [3, 9, 70_001],
    [4, 9, 200_000],
  ] as const) {
    const { ops, expected } = reduceCase(next, worldSize, numChunks, count);
    const results = runGang(ops.map((op) => [op]));
    for (const { outcomes } of results) t.ok(same(expected, outcomes[0]?.bytes), `${worldSize} ranks, ${count} floats`);
  }
});

test('nothing to reduce, gather or exchange is a meeting all the same', async (t) => {
  const scripts = [0, 1].map((): Op[] => [
    { op: 'allReduce', count: 0, numRoots: [1, 1], merges: [0, 1], data: new Float32Array(0) },
    { op: 'allGather', counts: [0, 0], data: new Uint8Array(0) },
    { op: 'exchangeRows', numRows: 0, rowBytes: 8, stride: 8, owner: [], data: new Uint8Array(0) },
  ]);
  for (const { outcomes } of runGang(scripts))
    t.same(
      outcomes.map(({ bytes }) => bytes?.length),
      [0, 0, 0],
    );
});

test('all-gather joins uneven contributions in rank order', async (t) => {
  const next = random(3);
  for (const counts of [[5], [8, 8], [0, 3], [1, 0, 700_000], [262_144, 262_145, 0, 1], Array.from({ length: 16 }, (_, r) => r * 31)]) {
    const { ops, expected } = gatherCase(next, counts);
    for (const { outcomes } of runGang(ops.map((op) => [op]))) t.ok(same(expected, outcomes[0]?.bytes), counts.join(' '));
  }
});

test('every rank receives the rows of their owners', async (t) => {
  const next = random(4);
  for (const [worldSize, numRows, rowBytes, stride] of [
    [1, 3, 4, 4],
    [2, 1, 64, 64],
    [3, 50, 36, 48],
    [4, 3, 300_001, 300_003],
    [5, 400, 2304, 2304],
  ] as const) {
    const owner = Array.from({ length: numRows }, () => Math.floor(next() * worldSize));
    const { ops, expected } = rowsCase(next, worldSize, numRows, rowBytes, stride, owner);
    const results = runGang(ops.map((op) => [op]));
    for (const [rank, { outcomes }] of results.entries()) {
      t.ok(same(expected[rank] as Uint8Array, outcomes[0]?.bytes), `${numRows} rows, rank ${rank}`);
    }
  }
});

test('hundreds of mixed collectives in a row keep their data apart', async (t) => {
  for (const worldSize of [2, 3, 6]) {
    const next = random(50 + worldSize);
    const scripts: Op[][] = Array.from({ length: worldSize }, () => []);
    const expected: (Uint8Array | Float32Array)[][] = [];
    for (let i = 0; i < 300; i++) {
      const kind = Math.floor(next() * 3);
      const size = Math.floor(next() ** 4 * 6000) + 1;
      if (kind === 0) {
        const reduce = reduceCase(next, worldSize, worldSize + Math.floor(next() * 6), size);
        for (const [rank, op] of reduce.ops.entries()) scripts[rank]?.push(op);
        expected.push(reduce.ops.map(() => reduce.expected));
      } else if (kind === 1) {
        const all = gatherCase(
          next,
          Array.from({ length: worldSize }, () => Math.floor(next() * size)),
        );
        for (const [rank, op] of all.ops.entries()) scripts[rank]?.push(op);
        expected.push(all.ops.map(() => all.expected));
      } else {
        const owner = Array.from({ length: 10 }, () => Math.floor(next() * worldSize));
        const rows = rowsCase(next, worldSize, 10, size, size + 3, owner);
        for (const [rank, op] of rows.ops.entries()) scripts[rank]?.push(op);
        expected.push(rows.expected);
      }
    }
    const results = runGang(scripts);
    const wrong = results.flatMap(({ outcomes }, rank) =>
      expected.flatMap((right, i) => (same(right[rank] as Uint8Array, outcomes[i]?.bytes) ? [] : [[rank, i]])),
    );
    t.same(wrong, [], `${worldSize} ranks: [rank, collective] that went wrong`);
  }
});

test('a rank that does not come is named, with the step, the collective and everyone missing', async (t) => {
  const counts = [4, 4, 4, 4];
  const late: Op[] = [gather(counts, 0), { op: 'setStep', step: 7 }];
  const reduce = reduceCase(random(5), 4, 4, 2000).ops;
  const scripts = [[...late, reduce[0] as Op], late, [...late, reduce[2] as Op], late];
  const results = runGang(scripts, { stepTimeoutMs: 1000 });
  for (const rank of [0, 2]) {
    const error = results[rank]?.outcomes[2];
    expectError(t, error, 'ERR_STEP_TIMEOUT', 'step 7', 'all-reduce 2 of 8000 bytes', `rank ${rank} waited`, 'for rank 1, rank 3');
  }
});

test('the first meeting has its own, longer timeout, until the first step', async (t) => {
  const [result] = runGang([[gather([4, 4], 0)], []], { stepTimeoutMs: 100_000, startupTimeoutMs: 100 });
  expectError(t, result?.outcomes[0], 'ERR_STEP_TIMEOUT', 'loading', 'rank 0 waited 0.', 's for rank 1');
});

test('abort from another thread ends a collective, its peers and every later call', async (t) => {
  for (let i = 0; i < 20; i++) {
    const counts = [4, 4, 4];
    const [first, , third] = runGang([
      [gather(counts, 0), gather(counts, 0), gather(counts, 0)],
      [gather(counts, 1), { op: 'abort', rank: 0 }],
      [gather(counts, 2), gather(counts, 2)],
    ]);
    // The abort may precede the end of rank 0's first collective.
    expectError(t, first?.outcomes[1], 'ERR_CLOSED', 'rank 0');
    expectError(t, first?.outcomes[2], 'ERR_CLOSED', 'rank 0');
    t.equal(third?.outcomes[1]?.code, 'ERR_CLOSED');
  }
});

test('a peer that leaves ends the wait for it', async (t) => {
  const counts = [4, 4];
  const [result] = runGang([
    [gather(counts, 0), gather(counts, 0)],
    [gather(counts, 1), { op: 'close' }],
  ]);
  t.equal(result?.outcomes[0]?.code, undefined);
  expectError(t, result?.outcomes[1], 'ERR_CLOSED', 'rank 1', 'left');
});

test('ranks in different collectives both notice, and name both', async (t) => {
  const counts = [64, 64];
  const reduce = (count: number, numRoots: number[], rank: number): Op => ({
    op: 'allReduce',
    count,
    numRoots,
    merges: numRoots.flatMap((n, r) => Array.from({ length: n }, (_, i) => (r + i === 0 ? 0 : 1))),
    data: new Float32Array(count * (numRoots[rank] as number)),
  });
  const rows: Op = { op: 'exchangeRows', numRows: 2, rowBytes: 4, stride: 4, owner: [0, 1], data: new Uint8Array(8) };
  const cases: [string, Op, Op, string, string][] = [
    ['kinds', gather(counts, 0), reduce(32, [1, 1], 1), 'all-gather 2 of 128 bytes', 'all-reduce 2 of 128 bytes'],
    ['sizes', reduce(32, [1, 1], 0), reduce(33, [1, 1], 1), 'all-reduce 2 of 128 bytes', 'all-reduce 2 of 132 bytes'],
    ['large sizes', reduce(9000, [1, 1], 0), reduce(90, [1, 1], 1), '36000 bytes', '360 bytes'],
    ['roots', reduce(32, [1, 2], 0), reduce(32, [2, 1], 1), 'spread differently', 'spread differently'],
    ['counts', gather([60, 68], 0), gather([68, 60], 1), 'spread differently', 'spread differently'],
    ['owners', rows, { ...rows, owner: [1, 0] }, 'spread differently', 'spread differently'],
  ];
  for (const [name, first, second, firstText, secondText] of cases) {
    const start = (rank: number): Op[] => [gather(counts, rank), { op: 'setStep', step: 3 }];
    const results = runGang([
      [...start(0), first],
      [...start(1), second],
    ]);
    expectError(t, results[0]?.outcomes[2], 'ERR_MISMATCH', 'step 3', 'rank 1', firstText, secondText);
    expectError(t, results[1]?.outcomes[2], 'ERR_MISMATCH', 'step 3', 'rank 0', firstText, secondText);
    t.pass(name);
  }
});

test('communicators follow each other on the same memory', async (t) => {
  const next = random(6);
  const scripts: Op[][] = [[], [], []];
  const expected: Float32Array[] = [];
  for (let i = 0; i < 10; i++) {
    const reduce = reduceCase(next, 3, 9, 40 * 3 ** (i % 6));
    expected.push(reduce.expected);
    for (const [rank, op] of reduce.ops.entries()) scripts[rank]?.push(op, { op: 'reopen' });
  }
  for (const { outcomes } of runGang(scripts)) {
    for (const [i, sum] of expected.entries()) t.ok(same(sum, outcomes[2 * i]?.bytes), `communicator ${i}`);
  }
});

test('a new communicator works after one that was left in the middle of a collective', async (t) => {
  const next = random(7);
  const lost = reduceCase(next, 3, 3, 100_000).ops;
  const { ops, expected } = reduceCase(next, 3, 3, 3000);
  const { ops: more, expected: moreExpected } = reduceCase(next, 3, 9, 777);
  const results = runGang(
    [0, 1, 2].map((rank) => [
      gather([4, 4, 4], rank),
      rank === 1 ? { op: 'abort', rank: 1 } : (lost[rank] as Op),
      { op: 'reopen' },
      ops[rank] as Op,
      more[rank] as Op,
    ]),
  );
  for (const rank of [0, 2]) t.equal(results[rank]?.outcomes[1]?.code, 'ERR_CLOSED');
  for (const { outcomes } of results) {
    t.ok(same(expected, outcomes[3]?.bytes));
    t.ok(same(moreExpected, outcomes[4]?.bytes));
  }
});

test('bytes are counted, and the partial sums among them', async (t) => {
  const reduce = reduceCase(random(8), 3, 9, 100);
  const results = runGang([0, 1, 2].map((rank) => [reduce.ops[rank] as Op, gather([40, 7, 0], rank)]));
  // Nine chunks on three ranks: 2, 2 and 1 partial sums of 400 bytes.
  t.same(
    results.map(({ allReduceBytes }) => allReduceBytes),
    [800, 800, 400],
  );
  t.same(
    results.map(({ exchangedBytes }) => exchangedBytes),
    [840, 807, 400],
  );
  for (const { waitSeconds } of results) t.ok(waitSeconds >= 0);
});

test('ranks find out at the end of a step that they differ', async (t) => {
  const agree = (planHash: number, outputHash: number): Op => ({ op: 'agree', step: 5, planHash, outputHash });
  const cases: [Op[], RegExp][] = [
    [
      [agree(1, 2), agree(1, 2), agree(1, 3)],
      /^Step 5: Expected the same tokens on every rank but received 0{15}2 on ranks 0, 1 and 0{15}3 on rank 2$/,
    ],
    [
      [agree(1, 2), agree(4, 2), agree(1, 2)],
      /^Step 5: Expected the same plan on every rank but received 0{15}1 on ranks 0, 2 and 0{15}4 on rank 1$/,
    ],
    [
      [agree(1, 2), agree(4, 3), agree(5, 2)],
      /^Step 5: Expected the same plan .* 0{15}1 on rank 0 and 0{15}4 on rank 1 and 0{15}5 on rank 2$/,
    ],
  ];
  for (const [ops, message] of cases) {
    const results = runGang(ops.map((op) => [agree(9, 9), op]));
    for (const { outcomes } of results) {
      t.equal(outcomes[0]?.code, undefined, 'equal ranks go on');
      t.match(outcomes[1], { code: 'ERR_MISMATCH', message });
    }
  }
  t.same(runGang([[agree(1, 2)]])[0], { outcomes: [{ bytes: new Uint8Array(0) }], exchangedBytes: 0, allReduceBytes: 0, waitSeconds: 0 });
});

test('shared memory that is not ours is refused', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'nds-comm-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const attempt = (fd: number, worldSize = 2, rank = 0): unknown => {
    try {
      return testing().commRank({ worldSize, rank, shmFd: fd, stepTimeoutMs: 1000, startupTimeoutMs: 1000 }, []);
    } catch (error) {
      return error;
    }
  };
  const path = join(folder, 'memory');
  writeFileSync(path, randomBytes(random(9), 5000));
  const foreign = openSync(path, 'r+');
  t.match(attempt(foreign), { code: 'ERR_MISMATCH', message: /something else/ });
  const fresh = openSync(join(folder, 'fresh'), 'w+');
  t.match(attempt(fresh), { outcomes: [] });
  t.match(attempt(fresh, 3), { code: 'ERR_MISMATCH', message: /of 3 ranks.*of 2 ranks/ });
  const readOnly = openSync(join(folder, 'fresh'), 'r');
  t.match(attempt(readOnly), { code: 'ERR_SYSTEM', message: /bytes for shared memory/ });
  const directory = openSync(folder, 'r');
  t.match(attempt(directory), { code: 'ERR_SYSTEM', message: /regular file/ });
  t.match(attempt(-1), { code: 'ERR_SYSTEM', message: /open file/ });
  t.match(attempt(fresh, 2, 2), { code: 'ERR_INTERNAL', message: /rank 2/ });
  t.match(attempt(fresh, 5000), { code: 'ERR_INTERNAL', message: /5000/ });
  for (const fd of [foreign, fresh, readOnly, directory]) closeSync(fd);
});

test('random floats do show the order of additions', async (t) => {
  const [a, b, c] = [1, 2, 3].map((seed) => randomFloats(random(seed), 1000)) as [Float32Array, Float32Array, Float32Array];
  const left = a.map((x, i) => Math.fround(x + (b[i] as number)) + (c[i] as number));
  const right = a.map((x, i) => x + Math.fround((b[i] as number) + (c[i] as number)));
  t.notSame(left, right);
});
