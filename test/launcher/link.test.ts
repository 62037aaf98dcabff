/** Launchers of several nodes over real sockets: meeting, talking, disagreeing, and what strangers cannot disturb. */
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { helloOf, keyOf } from '../../launcher/link/call.ts';
import type { Channel } from '../../launcher/link/channel.ts';
import { dial } from '../../launcher/link/handshake.ts';
import { Listener } from '../../launcher/link/listener.ts';
import { identity, LinkJob, nextEvent, Relay, tokenFile } from '../helpers/link.ts';
import { partOf } from '../helpers/scale.ts';

if (process.platform !== 'linux') {
  t.plan(0, 'needs all of 127.0.0.0/8');
  process.exit();
}

const closeAll = (links: readonly { close(): Promise<void> }[]) => Promise.all(links.map((link) => link.close()));

t.test('three nodes meet in any order, and talk', async (t) => {
  const job = new LinkJob(t, 3);
  const weaker = { identity: { ...identity, isas: ['avx2', 'portable'] } };
  const two = job.open(2, ['--local-addr=127.0.0.3']);
  const one = job.open(1, ['--local-addr=127.0.0.2'], weaker);
  const [zero, first, second] = await Promise.all([job.open(0), one, two]);
  for (const [nodeRank, { welcome }] of [zero, first, second].entries()) {
    t.same(welcome, { ...zero.welcome, nodeRank });
  }
  t.same(
    zero.welcome.nodes.map(({ address }) => address),
    [job.address, '127.0.0.2', '127.0.0.3'],
  );
  t.equal(zero.welcome.isa, 'avx2', 'the best that all have');
  t.match(zero.welcome.secret, /^[\da-f]{64}$/);

  const big = { text: 'x'.repeat(5 << 20) };
  for (const message of [{ n: 0 }, { n: 1 }, big]) first.send(0, message);
  zero.send(2, { n: 2 });
  const received: unknown[] = [];
  const heard = new Promise<void>((resolve) =>
    zero.on('message', (nodeRank, message) => {
      received.push([nodeRank, message]);
      if (received.length === 3) resolve();
    }),
  );
  t.same(await nextEvent(second, 'message'), [0, { n: 2 }]);
  await heard;
  t.same(received, [
    [1, { n: 0 }],
    [1, { n: 1 }],
    [1, big],
  ]);
  await closeAll([zero, first, second]);
});

t.test('it listens at one address', async (t) => {
  const job = new LinkJob(t, 2);
  const zero = job.open(0);
  const one = await job.open(1);
  const listening = readFileSync('/proc/net/tcp', 'utf8')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, , state]) => state === '0A' && local?.endsWith(`:${job.port.toString(16).toUpperCase()}`))
    .map(([, local]) =>
      Buffer.from(local?.slice(0, 8) ?? '', 'hex')
        .reverse()
        .join('.'),
    );
  t.ok(listening.includes(job.address), listening.join());
  t.notOk(listening.includes('0.0.0.0'));
  await closeAll([one, await zero]);
});

t.test('another token: said on both sides, and node 0 goes on', async (t) => {
  const job = new LinkJob(t, 2);
  const zero = job.open(0);
  const other = `--token-file=${tokenFile(t, 'other', 'another secret of some')}`;
  for (let attempt = 0; attempt < 2; attempt++) {
    await t.rejects(job.open(1, [other]), { code: 'ERR_MISMATCH', message: /the token of node 0 at .* but received another/ });
  }
  await closeAll([await job.open(1), await zero]);
  t.same(
    job.notices.filter((line) => line.includes('token')),
    ['a node at 127.0.0.1 has another token, and was refused'],
  );
  t.notMatch(job.notices.join(), /secret/);
});

t.test('who disagrees ends all, with the difference', async (t) => {
  const cases: [args: string[], change: object, message: RegExp][] = [
    [['--step-timeout=30'], {}, /^Expected nodes that agree but received step-timeout: 60 on node 0 \(\S+\), 30 on node 1 \(\S+\)$/],
    [['--role=a', '--node-timeout=9'], {}, /role: default on node 0 .*, a on node 1 .*; node-timeout: 10 on node 0 .*, 9 on node 1/],
    [[], { localWorldSize: 3 }, /ranks per node: 2 on node 0 .*, 3 on node 1/],
    [[], { identity: { ...identity, version: '1.0.1' } }, /one version of nano-dist-spec but received 1\.0\.0 on node 0 and 1\.0\.1 on /],
    [[], { identity: { ...identity, arch: 'arm64', isas: ['neon'] } }, /architecture: x64 on node 0 .*, arm64 on node 1/],
    [[], { identity: { ...identity, isas: ['portable2'] } }, /instruction sets: avx512 avx2 portable on node 0 .*, portable2 on node 1/],
    [[], { identity: { ...identity, libraries: { zeromq: '7' } } }, /zeromq: 6 on node 0 .*, 7 on node 1/],
  ];
  for (const [args, change, message] of cases) {
    const job = new LinkJob(t, 3);
    const others = [job.open(0), job.open(2)];
    const errors = await job.errors([...others, job.open(1, args, change)]);
    for (const error of errors) t.match(error, { code: 'ERR_MISMATCH', message });
    t.equal(new Set(errors.map(({ message }) => message)).size, 1, 'one text on every node');
  }
});

t.test('two nodes of one index, and a node too many', async (t) => {
  const job = new LinkJob(t, 3);
  const errors = await job.errors([job.open(0), job.open(1), job.open(1, ['--local-addr=127.0.0.9'])]);
  for (const error of errors) t.match(error, { code: 'ERR_MISMATCH', message: /one node 1 but received two, on .*127\.0\.0\.\d/ });

  const met = new LinkJob(t, 2);
  const links = await Promise.all([met.open(0), met.open(1)]);
  await t.rejects(met.open(1), { code: 'ERR_MISMATCH', message: /one node 1 but received two/ });
  const [zero, one] = links;
  zero.send(1, { still: 'here' });
  t.same(await nextEvent(one, 'message'), [0, { still: 'here' }], 'the job goes on');
  await closeAll(links);
});

t.test('a node of another job is refused alone', async (t) => {
  const job = new LinkJob(t, 2);
  const zero = job.open(0, ['--rdzv-id=a']);
  await t.rejects(job.open(1, ['--rdzv-id=b']), {
    code: 'ERR_MISMATCH',
    message: /one --rdzv-id but received a on node 0 .*, b on node 1/,
  });
  const one = await job.open(1, ['--rdzv-id=a']);
  t.equal(one.welcome.runId, 'a');
  await closeAll([one, await zero]);
});

t.test('a node that does not come is named on every node', async (t) => {
  const job = new LinkJob(t, 3);
  const errors = await job.errors([job.open(0, ['--rdzv-timeout=2']), job.open(1)]);
  for (const error of errors) {
    t.match(error, { code: 'ERR_PEER_LOST', message: 'Expected 3 nodes within 2 s (--rdzv-timeout) but node 2 did not come' });
  }
  await t.rejects(job.open(1, ['--rdzv-timeout=0.3']), {
    code: 'ERR_PEER_LOST',
    message: /Expected node 0 at 127\..*, within 0\.3 s \(--rdzv-timeout\) but received ECONNREFUSED/,
  });
});

t.test('indices in order of arrival', async (t) => {
  const job = new LinkJob(t, 3);
  const links = await Promise.all([job.open(null), job.open(null), job.open(null)]);
  t.same(links.map(({ welcome }) => welcome.nodeRank).sort(), [0, 1, 2]);
  await closeAll(links);
  const mixed = new LinkJob(t, 3);
  const zero = mixed.open(0);
  await mixed.listening();
  const some = await Promise.all([zero, mixed.open(null), mixed.open(1)]);
  t.equal(some[1]?.welcome.nodeRank, 2);
  await closeAll(some);
});

t.test('a node that leaves early may come again', async (t) => {
  const job = new LinkJob(t, 3);
  const zero = job.open(0);
  await (await greeted(job)).close();
  const rest = await Promise.all([job.open(1), job.open(2)]);
  await closeAll([await zero, ...rest]);
  t.match(job.notices[1], /^node 1 \(\S+\) has left before all nodes had met: its launcher ended the connection$/);
});

t.test('a node that is stopped while it waits, and node 0', async (t) => {
  const job = new LinkJob(t, 3);
  const stop = new AbortController();
  const zero = job.open(0, [], { signal: stop.signal });
  const channel = await greeted(job);
  stop.abort(new Error('stopped'));
  t.match(await channel.next(), { type: 'refused', body: { code: 'ERR_PEER_LOST', message: /node 0 was stopped/ } });
  await t.rejects(zero, { message: 'stopped' });
  await channel.close();
  const lonely = new AbortController();
  setImmediate(() => lonely.abort(new Error('stopped')));
  await t.rejects(job.open(1, [], { signal: lonely.signal }), { message: 'stopped' });
});

t.test('a silent peer is lost, on either side', async (t) => {
  const job = new LinkJob(t, 2);
  const zero = job.open(0, ['--node-timeout=1']);
  const channel = await greeted(job, ['--node-timeout=1']);
  const host = await zero;
  t.same(await nextEvent(host, 'lost'), [1, 'it gave no sign of life for 1 s']);
  await Promise.all([host.close(), channel.close()]);

  const mute = new LinkJob(t, 2);
  const call = mute.call(1, ['--node-timeout=1']);
  const nodes = [0, 1].map(() => ({ host: 'h', address: 'a' }));
  const listener = await Listener.open(mute.address, mute.port, keyOf(call.options), {
    notice: () => {},
    onGreeting: (channel) => {
      channel.send('waits');
      channel.send('welcome', { nodeRank: 1, runId: 'r', isa: null, secret: '0'.repeat(64), nodes });
      channel.send('message', { at: 'once' });
      channel.watch(() => {});
    },
  });
  const link = await mute.open(1, ['--node-timeout=1']);
  t.same(await nextEvent(link, 'message'), [0, { at: 'once' }], 'what came with the welcome is not missed');
  t.same(await nextEvent(link, 'lost'), [0, 'it gave no sign of life for 1 s']);
  listener.close();
  await link.close();
});

t.test('a link that is cut for a while goes on, one cut for good is lost on both sides', async (t) => {
  const job = new LinkJob(t, 2);
  const relay = await Relay.open(job.port, job.address);
  const zero = job.open(0, ['--node-timeout=4']);
  await job.listening();
  const one = await job.open(1, ['--node-timeout=4'], {}, relay.address);
  const host = await zero;
  relay.cut();
  host.send(1, { sent: 'while cut' });
  await sleep(2000);
  relay.mend();
  t.same(await nextEvent(one, 'message'), [0, { sent: 'while cut' }]);
  relay.cut();
  const silence = 'it gave no sign of life for 4 s';
  t.same(await Promise.all([nextEvent(host, 'lost'), nextEvent(one, 'lost')]), [
    [1, silence],
    [0, silence],
  ]);
  await closeAll([host, one]);
  relay.close();
});

t.test('a launcher that ends is lost at once', async (t) => {
  const job = new LinkJob(t, 2);
  const [zero, one] = await Promise.all([job.open(0), job.open(1)]);
  const lost = nextEvent(zero, 'lost');
  await one.close();
  t.same(await lost, [1, 'its launcher ended the connection']);
  await zero.close();
});

t.test('what breaks the protocol loses its sender', async (t) => {
  const job = new LinkJob(t, 2);
  const deep = JSON.parse('['.repeat(20) + ']'.repeat(20));
  for (const [type, body, reason] of [
    ['message', deep, /deeper nesting/],
    ['message', 'x'.repeat((16 << 20) + 1), /a frame of at most/],
    ['welcome', {}, /Expected a message but received welcome/],
  ] as const) {
    job.notices.length = 0;
    const zero = job.open(0);
    const channel = await greeted(job);
    const host = await zero;
    const lost = nextEvent(host, 'lost');
    channel.send(type, body);
    t.match(await lost, [1, reason]);
    await Promise.all([host.close(), channel.close()]);
  }
});

t.test('strangers neither disturb nor stay', async (t) => {
  const job = new LinkJob(t, 2);
  const zero = job.open(0);
  await job.listening();
  const sockets: Socket[] = [];
  const closed: Promise<unknown>[] = [];
  for (let index = 0; index < partOf(10_000, 16); index++) {
    const socket = connect({ host: job.address, port: job.port });
    sockets.push(socket.on('error', () => {}).resume());
    closed.push(new Promise((resolve) => socket.once('close', resolve)));
    if (index % 3 === 1) socket.write('GET / HTTP/1.1\r\n\r\n');
    if (index % 3 === 2) socket.write(Buffer.alloc(20_000, index));
    if (index % 20 === 0) await new Promise((resolve) => socket.once('connect', resolve).once('close', resolve));
  }
  const one = await job.open(1);
  const host = await zero;
  host.send(1, { still: 'here' });
  t.same(await nextEvent(one, 'message'), [0, { still: 'here' }]);
  t.ok(sockets.filter((socket) => !socket.closed).length <= 140, 'most were turned away');
  await closeAll([one, host]);
  await Promise.all(closed);
  t.same(job.notices.length, 1, job.notices.join('\n'));
});

/** A node 1 that has been let in, and is silent from then on. */
async function greeted(job: LinkJob, args: readonly string[] = []): Promise<Channel> {
  await job.listening();
  const call = job.call(1, args);
  const channel = await dial({ host: job.address, port: job.port, localAddress: null }, keyOf(call.options), 5000, call.signal);
  channel.send('hello', helloOf(call, channel.localAddress));
  if ((await channel.next()).type !== 'waits') throw new Error('Expected node 0 to take the greeting');
  return channel;
}
