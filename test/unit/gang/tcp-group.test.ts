/** Sockets between ranks of several nodes: CURVE over TCP, with all ends in this process. */
import { connect as connectTcp, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import { curveKeyPair, Pull, Push } from 'zeromq';
import type { GangInfo, NodesInfo } from '../../../protocol/control.ts';
import { encodeMessage } from '../../../protocol/messages.ts';
import { FollowerLink } from '../../../rank/gang/follower-link.ts';
import { type Channel, connectEnd, readPorts, writePorts } from '../../../rank/gang/transport.ts';
import { relay } from '../../helpers/frame-relay.ts';
import { connect, envOf, identity, makeGang, openGroup, take } from '../../helpers/gang-sockets.ts';

const loopback = '127.0.0.1';
const unload = { message: { type: 'unload' }, frame: null };

/** A gang of two ranks whose sockets are bound, while rank 0 waits. */
async function bind(t: Test, epoch = 0) {
  const [leader, follower] = makeGang(t, 2, loopback, epoch) as [GangInfo, GangInfo];
  const { group, ports } = openGroup(t, leader, 2);
  const meeting = group.meet(identity);
  return { group, meeting, leader, follower, ports: (await ports) as ReadonlyMap<Channel, number> };
}

function openLink(t: Test, gang: GangInfo, ports: ReadonlyMap<Channel, number>, onLeaderGone = () => {}): FollowerLink {
  const link = new FollowerLink({ env: envOf(1, 2), gang, ports, identity, onLeaderGone });
  t.teardown(() => link.close());
  return link;
}

const withCurve = (gang: GangInfo, change: Partial<NodesInfo['curve']>): GangInfo => {
  const nodes = gang.nodes as NodesInfo;
  return { ...gang, nodes: { ...nodes, curve: { ...nodes.curve, ...change } } };
};

for (const address of [loopback, '::1']) {
  t.test(`plans reach every rank in order over ${address}, and replies come back`, async (t) => {
    const { group, links, allGone } = await connect(t, 4, address);
    const frames = Array.from({ length: 500 }, (_, step) => new Uint8Array(64 + step).fill(step));
    for (const [step, frame] of frames.entries()) group.broadcast({ type: 'plan', step, directory: [1, 0, 64] }, frame);
    group.broadcast({ type: 'unload' });
    for (const received of await Promise.all(links.map((link) => take(link, 501)))) {
      t.same(received.pop(), unload);
      t.ok(
        received.every(
          ({ message, frame }, step) =>
            message.type === 'plan' && message.step === step && frame?.length === 64 + step && frame[0] === step % 256,
        ),
      );
    }
    for (const rank of [3, 1, 2]) links[rank - 1]?.send({ type: 'unloaded', rank });
    t.same(
      (await group.collect('unloaded', 20_000)).map(({ rank }) => rank),
      [1, 2, 3],
    );
    group.close();
    await allGone();
  });
}

t.test('an address of all interfaces is refused', async (t) => {
  for (const address of ['0.0.0.0', '::', '0::0', '::ffff:0.0.0.0', '::FFFF:0:0', '*', '']) {
    const [gang] = makeGang(t, 2, loopback) as [GangInfo];
    const nodes = { ...(gang.nodes as NodesInfo), localAddr: address };
    t.throws(() => openGroup(t, { ...gang, nodes }, 2), { code: 'ERR_USAGE', message: /--local-addr/ });
  }
});

t.test('keys that are none, or of too few ranks, are refused', async (t) => {
  const [gang] = makeGang(t, 2, loopback) as [GangInfo];
  const { publicKey } = curveKeyPair();
  for (const [publicKeys, message] of [
    [[publicKey], /public keys of 2 ranks but received 1/],
    [[publicKey, publicKey.slice(1)], /a CURVE key/],
    [[publicKey, '~'.repeat(40)], /a CURVE key/],
    [[publicKey, '#'.repeat(40)], /a CURVE key/],
  ] as const) {
    t.throws(() => openGroup(t, withCurve(gang, { publicKeys }), 2), { code: 'ERR_PROTOCOL', message });
  }
});

t.test('strangers are not heard, and the gang meets all the same', async (t) => {
  const { group, meeting, follower, ports } = await bind(t);
  const end = (channel: Channel) => connectEnd(follower, channel, ports, 0);
  const { address } = end('up');
  const stranger = curveKeyPair();
  const senders = [
    new Push({ linger: 0 }),
    new Push({ linger: 0, ...end('up').options, curvePublicKey: stranger.publicKey, curveSecretKey: stranger.secretKey }),
    new Push({ linger: 0, ...end('up').options, curveServerKey: stranger.publicKey }),
  ];
  // Refused at the handshake or kept waiting: none gets a place to send to.
  for (const sender of senders) {
    t.teardown(() => sender.close());
    sender.connect(address);
    sender.send(encodeMessage(0, 0, { type: 'error', rank: 1, code: 'ERR_INTERNAL', message: 'a lie' })).catch(() => {});
  }
  const refused = new Promise((resolve) => senders[1]?.events.on('handshake:error:auth', resolve));
  const eavesdropper = new Pull({
    linger: 0,
    ...end('plan-1').options,
    curvePublicKey: stranger.publicKey,
    curveSecretKey: stranger.secretKey,
  });
  t.teardown(() => eavesdropper.close());
  const kept = new Promise((resolve) => eavesdropper.events.on('handshake:error:auth', resolve));
  eavesdropper.connect(end('plan-1').address);
  await Promise.all([refused, kept]);
  const link = openLink(t, follower, ports);
  await meeting;
  group.broadcast({ type: 'unload' });
  t.same(await take(link, 1), [unload]);
  link.send({ type: 'unloaded', rank: 1 });
  t.match(await group.collect('unloaded', 20_000), [{ rank: 1 }], 'nothing that a stranger sent was received');
});

t.test("a rank's plans go to that rank only", async (t) => {
  const gangs = makeGang(t, 3, loopback);
  const { group, ports } = openGroup(t, gangs[0] as GangInfo, 3);
  const meeting = group.meet(identity);
  meeting.catch(() => {});
  const { address, options } = connectEnd(gangs[2] as GangInfo, 'plan-1', await ports, 0);
  const other = new Pull({ linger: 0, ...options });
  t.teardown(() => other.close());
  const refused = new Promise((resolve) => other.events.on('handshake:error:auth', resolve));
  other.connect(address);
  await refused;
});

t.test('once all ranks have met, nobody else is admitted, with whatever key', async (t) => {
  const { group, links, ports, gangs } = await connect(t, 2, loopback);
  const { address, options } = connectEnd(gangs[1] as GangInfo, 'plan-1', ports, 0);
  const twin = new Pull({ linger: 0, ...options });
  t.teardown(() => twin.close());
  let hasMet = false;
  twin.events.on('handshake', () => {
    hasMet = true;
  });
  const refused = new Promise((resolve) => twin.events.on('disconnect', resolve));
  twin.connect(address);
  await refused;
  for (let step = 0; step < 10; step++) group.broadcast({ type: 'plan', step, directory: [] }, new Uint8Array(64));
  t.equal((await take(links[0] as FollowerLink, 10)).length, 10, 'a second connection would get every other plan');
  t.notOk(hasMet);
});

t.test('a follower that is given the key of another server never meets it', async (t) => {
  const { group, meeting, follower, ports } = await bind(t);
  const link = openLink(
    t,
    withCurve(follower, { publicKeys: [curveKeyPair().publicKey, follower.nodes?.curve.publicKey as string] }),
    ports,
  );
  const receiving = take(link, 1);
  // The right follower comes later, and is the one that rank 0 meets.
  const right = openLink(t, follower, ports);
  await meeting;
  group.broadcast({ type: 'unload' });
  t.same(await take(right, 1), [unload]);
  link.close();
  t.same(await receiving, []);
});

t.test('connections that say nothing, or nonsense, cost the gang nothing', async (t) => {
  const { group, links, ports } = await connect(t, 2, loopback);
  const sockets: Socket[] = [];
  t.teardown(() => sockets.forEach((socket) => socket.destroy()));
  const frames = ['', 'GET / HTTP/1.1\r\n\r\n', '\xff\0\0\0\0\0\0\0\x01\x7f\x03\0', `\xff${'\xff'.repeat(2000)}`];
  for (let i = 0; i < 400; i++) {
    const socket = connectTcp([...(ports as ReadonlyMap<Channel, number>).values()][i % 2] as number, loopback);
    sockets.push(socket);
    socket.on('error', () => {});
    await new Promise((resolve) => socket.once('connect', resolve));
    socket.write(Buffer.from(frames[i % 4] as string, 'latin1'));
  }
  for (let step = 0; step < 100; step++) group.broadcast({ type: 'plan', step, directory: [] }, new Uint8Array(1000));
  t.equal((await take(links[0] as FollowerLink, 100)).length, 100);
});

const flipped = (frame: Buffer) => Buffer.from(frame.map((byte, i) => (i === frame.length - 20 ? byte ^ 1 : byte)));

// Frames 2 and 3 are the plan of step 1.
for (const [what, change, code] of [
  ['repeated', (frame: Buffer, i: number) => (i === 3 ? [frame, frame] : [frame]), 'ERR_PEER_LOST'],
  ['dropped', (frame: Buffer, i: number) => (i === 2 || i === 3 ? [] : [frame]), 'ERR_PROTOCOL'],
  ['cut short', (frame: Buffer, i: number) => (i === 3 ? [] : [frame]), 'ERR_PROTOCOL'],
  ['corrupted', (frame: Buffer, i: number) => [i === 3 ? flipped(frame) : frame], 'ERR_PEER_LOST'],
] as const) {
  t.test(`a plan that is ${what} on the wire ends the follower`, async (t) => {
    const { group, meeting, follower, ports } = await bind(t);
    const between = await relay(t, ports.get('plan-1') as number, change);
    const link = openLink(t, follower, new Map([...ports, ['plan-1', between.port]]));
    await meeting;
    for (let step = 0; step < 4; step++) group.broadcast({ type: 'plan', step, directory: [] }, new Uint8Array(2000));
    const steps: number[] = [];
    const receiving = (async () => {
      for await (const { message } of link.messages()) steps.push(message.type === 'plan' ? message.step : -1);
    })();
    await t.rejects(receiving, { code });
    t.ok(steps.length <= 2 && steps.every((step, i) => step === i), 'what was received is as it was sent');
  });
}

t.test('a connection that breaks ends the follower, but a wait does not', async (t) => {
  const { group, meeting, follower, ports } = await bind(t);
  const between = await relay(t, ports.get('up') as number, (frame) => [frame]);
  const gone: string[] = [];
  const link = openLink(t, follower, new Map([...ports, ['up', between.port]]), () => gone.push('gone'));
  await meeting;
  const receiving = take(link, 2);
  group.broadcast({ type: 'unload' });
  between.cut();
  await t.rejects(receiving, { code: 'ERR_PEER_LOST' });
  link.send({ type: 'unloaded', rank: 1 });
  await link.flush();
  t.same(gone, [], 'rank 0 is still there');
});

t.test('epochs share nothing: each has its own ports, keys and numbers', async (t) => {
  const first = await bind(t, 1);
  const old = openLink(t, first.follower, first.ports);
  await first.meeting;
  first.group.broadcast({ type: 'unload' });
  const second = await bind(t, 2);
  first.group.close(0);
  const young = openLink(t, second.follower, second.ports);
  await second.meeting;
  t.same(
    [...second.ports.values()].filter((port) => [...first.ports.values()].includes(port)),
    [],
  );
  second.group.broadcast({ type: 'unload' });
  t.same(await take(young, 1), [unload]);
  // A survivor of the first epoch has keys that the second does not know.
  const survivor = openLink(t, first.follower, second.ports);
  const waiting = take(survivor, 1);
  young.send({ type: 'unloaded', rank: 1 });
  t.match(await second.group.collect('unloaded', 20_000), [{ rank: 1 }]);
  survivor.close();
  t.same(await waiting, []);
  old.close();
});

t.test('ports are read as they were written', async (t) => {
  const ports = new Map<Channel, number>([
    ['up', 1],
    ['plan-1', 65_535],
    ['plan-2', 7],
  ]);
  t.same([...readPorts(writePorts(ports, 3), 3)], [...ports]);
  for (const text of ['', '1 2', '1 2 3 4', '1 2 0', '1 2 65536', '1 2 x', '1 2 1.5', '1  2']) {
    t.throws(() => readPorts(text, 3), { code: 'ERR_PROTOCOL', message: /Expected 3 ports/ });
  }
});
