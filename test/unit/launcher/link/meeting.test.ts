/** Who may join a job: greetings compared, indices given out. */
import t from 'tap';
import { agreedOptions, commonIsa, differences, type Hello, readHello, readWelcome } from '../../../../launcher/link/hello.ts';
import { Meeting } from '../../../../launcher/link/meeting.ts';
import { parseLaunchOptions } from '../../../../launcher/options.ts';

const hello = (nodeRank: number | null, change: Partial<Hello> = {}): Hello => ({
  version: '1',
  arch: 'x64',
  isas: ['avx512', 'avx2', 'portable'],
  libraries: { zeromq: '6' },
  nodeRank,
  host: `h${nodeRank}`,
  address: `10.0.0.${nodeRank}`,
  runId: null,
  options: { nnodes: '3' },
  ...change,
});

t.test('nodes with and without an index', async (t) => {
  const meeting = new Meeting<string>(hello(0), 4);
  t.equal(meeting.missing, 'nodes 1 and 2 and 3');
  t.equal(meeting.join('a', hello(null)), 'waits');
  t.equal(meeting.missing, '2 of 4 nodes');
  t.equal(meeting.join('b', hello(1)), 'waits');
  t.equal(meeting.join('c', hello(null)), 'complete');
  t.same(
    meeting.seats.map(({ key, hello: { nodeRank } }) => [key, nodeRank]),
    [
      [null, 0],
      ['b', 1],
      ['a', 2],
      ['c', 3],
    ],
  );
  t.match(meeting.join('d', hello(null)), { refused: { code: 'ERR_MISMATCH', message: /4 nodes but received one more, on hnull/ } });
});

t.test('who leaves is missing again', async (t) => {
  const meeting = new Meeting<string>(hello(0), 3);
  meeting.join('a', hello(1));
  t.equal(meeting.missing, 'node 2');
  meeting.leave('a');
  t.equal(meeting.missing, 'nodes 1 and 2');
  t.equal(meeting.join('b', hello(1)), 'waits');
  t.equal(meeting.join('c', hello(2)), 'complete');
});

t.test('who may not stay', async (t) => {
  const cases: [hello: Hello, message: RegExp][] = [
    [hello(1, { host: 'x' }), /one node 1 but received two, on h1 \(10\.0\.0\.1\) and x \(10\.0\.0\.1\)$/],
    [hello(0), /one node 0 but received two/],
    [hello(3), /a node rank below 3 but received 3 on h3/],
    [hello(2, { options: { nnodes: '4' } }), /nodes that agree but received nnodes: 3 on node 0 \(h0\), 4 on node 2 \(h2\)$/],
    [hello(2, { isas: ['portable'] }), /an instruction set that all nodes have but received .*avx2 on node 1 \(h1\), portable on node 2/],
  ];
  for (const [guest, message] of cases) {
    const meeting = new Meeting<string>(hello(0), 3);
    meeting.join('a', hello(1, { isas: ['avx2'] }));
    t.match(meeting.join('b', guest), { failed: { code: 'ERR_MISMATCH', message } });
  }
  const meeting = new Meeting<string>(hello(0, { runId: 'a' }), 3);
  t.match(meeting.join('b', hello(1, { runId: 'b' })), { refused: { message: /one --rdzv-id but received a on .* b on/ } });
});

t.test('differences', async (t) => {
  t.same(differences(hello(0), hello(1)), []);
  t.same(differences(hello(0), hello(null, { version: '2', arch: 'arm64', options: { constructor: 'x' } })), [
    'version: 1 on node 0 (h0), 2 on a node (hnull)',
    'architecture: x64 on node 0 (h0), arm64 on a node (hnull)',
    'nnodes: 3 on node 0 (h0), none on a node (hnull)',
    'constructor: none on node 0 (h0), x on a node (hnull)',
  ]);
  t.equal(commonIsa([hello(0), hello(1, { isas: ['avx2', 'portable'] })]), 'avx2');
  t.equal(commonIsa([hello(0, { isas: [] }), hello(1, { isas: [] })]), null, 'programs');
  t.equal(commonIsa([hello(0), hello(1, { isas: [] })]), undefined);
});

t.test('options that must agree, and those that need not', async (t) => {
  const agreed = (...args: string[]) => agreedOptions(parseLaunchOptions([...args, '/a/run.ts', 'x'], {}), 2);
  const base = agreed();
  for (const option of ['--step-timeout=1', '--role=x', '--no-node', '--node-timeout=3']) t.notSame(agreed(option), base, option);
  for (const option of ['--log-dir=x', '--report=x', '--local-addr=x', '--token-file=x', '--rdzv-timeout=9']) t.same(agreed(option), base);
  t.same(agreedOptions(parseLaunchOptions(['/b/run.js', 'other'], {}), 2), base, 'each node has its own files');
});

t.test('greetings are checked', async (t) => {
  t.same(readHello(hello(1), '1'), hello(1));
  t.throws(() => readHello({ version: '2', host: 'b' }, '1'), { code: 'ERR_MISMATCH', message: /received 1 on node 0 and 2 on b$/ });
  const bad: unknown[] = [null, [], 'x', {}, { ...hello(1), isas: 'avx2' }, { ...hello(1), nodeRank: -1 }, { ...hello(1), extra: 1 }];
  for (const value of bad) t.throws(() => readHello(value, '1'), { code: 'ERR_PROTOCOL' });
  const welcome = { nodeRank: 1, runId: 'r', isa: null, secret: '0'.repeat(64), nodes: [0, 1].map(() => ({ host: 'h', address: 'a' })) };
  t.same(readWelcome(welcome), welcome);
  for (const change of [{ nodeRank: 2 }, { secret: '00' }, { nodes: [{}] }]) {
    t.throws(() => readWelcome({ ...welcome, ...change }), { code: 'ERR_PROTOCOL' });
  }
});
