/** Connections between hosts' leaders: who is let in, and what a collective makes of frames that are not as they were sent. */
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { type Test, test } from 'tap';
import { type MeshConnectOptions, native } from '../../rank/native.ts';
import { gatherCase, type Op, random, reduceCase } from '../helpers/comm-gang.ts';
import { connectAll, hostsTesting, listenAll, loopback, meet, type Route, runOnHosts } from '../helpers/comm-hosts.ts';
import { type MeshRelay, meshRelay } from '../helpers/mesh-relay.ts';

const gather = (counts: number[], rank: number): Op => ({ op: 'allGather', counts, data: new Uint8Array(counts[rank] as number) });

/** Two hosts; what node 1 sends to node 0 passes a relay. */
async function meetByRelay(t: Test, change?: (frame: Buffer, index: number) => readonly Buffer[]) {
  let relay: MeshRelay | undefined;
  const route: Route = async (from, to, port) => {
    if (from !== 1 || to !== 0) return port;
    relay = await meshRelay(t, port, change);
    return relay.port;
  };
  const meshes = await meet(2, route);
  return { meshes, relay: relay as MeshRelay };
}

test('SipHash-2-4 with 128 bits: the vectors of its authors', async (t) => {
  const key = Uint8Array.from({ length: 16 }, (_, i) => i);
  // vectors.h of https://github.com/veorq/SipHash, of 0 … n - 1.
  const vectors: [number, string][] = [
    [0, 'a3817f04ba25a8e66df67214c7550293'],
    [1, 'da87c1d86b99af44347659119b22fc45'],
    [7, 'a1f1ebbed8dbc153c0b84aa61ff08239'],
    [8, '3b62a9ba6258f5610f83e264f31497b4'],
    [15, '5493e99933b0a8117e08ec0f97cfc3d9'],
    [63, '5150d1772f50834a503e069a973fbd7c'],
  ];
  for (const [length, mac] of vectors) {
    const data = Uint8Array.from({ length }, (_, i) => i);
    t.equal(Buffer.from(hostsTesting().sipHash(key, data)).toString('hex'), mac, `${length} bytes`);
  }
});

test('a frame that is not as it was sent fails the step, saying what', async (t) => {
  const counts = [1000, 1000];
  let kept: Buffer = Buffer.alloc(0);
  /** Changes the second frame, that of the second collective. */
  const second = (change: (frame: Buffer) => readonly Buffer[]) => (frame: Buffer, index: number) =>
    index === 1 ? change(frame) : [frame];
  const flip = (at: number) =>
    second((frame) => {
      const position = at < 0 ? frame.length + at : at;
      frame.writeUInt8(frame.readUInt8(position) ^ 1, position);
      return [frame];
    });
  const cases: [string, (frame: Buffer, index: number) => readonly Buffer[], RegExp][] = [
    ['session', flip(8), /authentic frame from node 1/],
    ['sender', flip(12), /authentic frame from node 1/],
    ['sequence', flip(16), /authentic frame from node 1/],
    ['step', flip(24), /authentic frame from node 1/],
    ['payload', flip(80), /authentic frame from node 1/],
    ['MAC', flip(-1), /authentic frame from node 1/],
    ['shorter', second((frame) => [Buffer.from(frame.fill(Uint8Array.of(1, 0), 0, 2))]), /authentic frame from node 1/],
    [
      'length',
      second((frame) => [Buffer.from(frame.fill(255, 0, 4))]),
      /a frame of at most 65536 bytes from node 1 but received 4294967295/,
    ],
    ['repeated', second((frame) => [frame, frame]), /frame 2 from node 1 but received frame 1/],
    [
      'replayed',
      (frame, index) => {
        if (index === 0) kept = Buffer.from(frame);
        return index === 1 ? [kept] : [frame];
      },
      /frame 1 from node 1 but received frame 0/,
    ],
    ['dropped', second(() => []), /frame 1 from node 1 but received frame 2/],
  ];
  for (const [name, change, message] of cases) {
    const { meshes } = await meetByRelay(t, change);
    const scripts = [0, 1].map((rank): Op[] => [
      gather(counts, rank),
      { op: 'setStep', step: 9 },
      gather(counts, rank),
      // A dropped frame is missed when the next one comes, that of a rank that gives up.
      ...(name === 'dropped' && rank === 1 ? [{ op: 'abort', rank: 1 } as const] : []),
      gather(counts, rank),
    ]);
    const [first, other] = await runOnHosts(meshes, scripts);
    t.equal(first?.outcomes[0]?.code, undefined, name);
    const failed = name === 'repeated' ? first?.outcomes[3] : first?.outcomes[2];
    t.match(failed, { code: 'ERR_PROTOCOL', message }, name);
    t.match(failed?.message, /^step 9, all-gather [23] of 2000 bytes: rank 0 waited /, name);
    // The sender finds the connection closed, unless it has sent its last frame.
    if (name !== 'repeated') t.equal(other?.outcomes.at(-1)?.code, 'ERR_CLOSED', name);
    // Not this communicator alone: whatever comes after a bad frame cannot be trusted.
    const [again] = await runOnHosts(meshes, [[gather(counts, 0)], []]);
    t.equal(again?.outcomes[0]?.code, 'ERR_PROTOCOL', `${name}: the next communicator`);
  }
});

test('a connection that is cut in mid-collective ends it on both hosts', async (t) => {
  const { ops } = reduceCase(random(1), 2, 2, 500_000);
  let relay: MeshRelay | undefined;
  const met = await meetByRelay(t, (frame, index) => {
    if (index === 3) relay?.cut();
    return [frame];
  });
  relay = met.relay;
  const results = await runOnHosts(
    met.meshes,
    ops.map((op) => [op]),
  );
  for (const [rank, { outcomes }] of results.entries())
    t.match(outcomes[0], {
      code: 'ERR_CLOSED',
      message: new RegExp(`rank ${rank} waited .* for rank ${1 - rank} \\(node ${1 - rank}, 127.0.0.1\\)`),
    });
});

test('a connection that stands still for a while goes on', async (t) => {
  const next = random(2);
  let relay: MeshRelay | undefined;
  const met = await meetByRelay(t, (frame, index) => {
    if (index === 2) {
      relay?.pause();
      setTimeout(() => relay?.resume(), 500);
    }
    return [frame];
  });
  relay = met.relay;
  const all = [1, 2, 3, 4].map((i) => gatherCase(next, [i * 100_000, i * 70_000]));
  const results = await runOnHosts(
    met.meshes,
    [0, 1].map((rank) => all.map(({ ops }) => ops[rank] as Op)),
  );
  for (const { outcomes } of results)
    for (const [i, { expected }] of all.entries()) t.equal(Buffer.compare(outcomes[i]?.bytes as Uint8Array, expected), 0);
});

test('a leader with another key, of another epoch or another mesh is not let in, and says why', async (t) => {
  const key = new Uint8Array(16).fill(7);
  const cases: [string, (node: number) => Partial<MeshConnectOptions>, RegExp][] = [
    ['key', (node) => ({ key: new Uint8Array(16).fill(node) }), /another key/],
    ['epoch', (node) => ({ key, epoch: 3 + node }), /node 0 of 2, epoch 3, version 1 is of another mesh/],
    ['size', (node) => (node === 0 ? { key } : { key, addresses: Array(3).fill(loopback) }), /node 0 of 2, epoch 1/],
  ];
  for (const [what, of, reason] of cases) {
    const meshes = listenAll(2);
    const ports = [...meshes.map(({ port }) => port), 1];
    const options = (node: number) => ({ timeoutMs: 1500, ports: ports.slice(0, what === 'size' ? 2 + node : 2), ...of(node) });
    const [first, second] = await connectAll(meshes, options);
    t.match(first, { status: 'rejected', reason: { code: 'ERR_PEER_LOST', message: /node 1 \(127.0.0.1\) did not come/ } }, what);
    t.match(second, { status: 'rejected', reason: { code: 'ERR_PEER_LOST', message: reason } }, what);
  }
});

/** A stranger's connection, which errors do not disturb. */
function stranger(port: number, data: Uint8Array): Socket {
  const socket = connectTcp(port, loopback);
  socket.on('error', () => {});
  socket.write(data);
  return socket;
}

test('strangers who connect, silent or with garbage, hold up nobody, and the port closes once all have met', async (t) => {
  const meshes = listenAll(3);
  const garbage = Uint8Array.from({ length: 300 }, (_, i) => i * 7);
  const greeting = Buffer.concat([Buffer.from('NDSM'), Buffer.alloc(36, 1)]);
  const port = meshes[0]?.port as number;
  const flood = (count: number) =>
    Array.from({ length: count }, (_, i) => stranger(port, [Buffer.alloc(0), garbage, greeting][i % 3] as Buffer));
  const sockets = flood(300);
  const more = setInterval(() => sockets.push(...flood(20)), 5);
  t.teardown(() => {
    clearInterval(more);
    sockets.forEach((socket) => socket.destroy());
  });
  const met = await connectAll(meshes);
  t.same(
    met.map(({ status }) => status),
    ['fulfilled', 'fulfilled', 'fulfilled'],
  );
  const counts = [4, 5, 6];
  for (const { outcomes } of await runOnHosts(
    meshes,
    counts.map((_, rank) => [gather(counts, rank)]),
  ))
    t.equal(outcomes[0]?.code, undefined);
  for (const mesh of meshes) await t.rejects(once(connectTcp(mesh.port, loopback), 'connect'), { code: 'ECONNREFUSED' });
});

test('a node that does not come is named', async (t) => {
  const meshes = listenAll(3);
  meshes.splice(1, 1);
  const [reserved] = listenAll(1);
  const ports = [meshes[0]?.port, reserved?.port, meshes[1]?.port] as number[];
  const addresses = Array(3).fill(loopback);
  const key = new Uint8Array(16);
  const met = await Promise.allSettled(
    meshes.map((mesh, i) => mesh.connect({ nodeRank: 2 * i, epoch: 1, key, addresses, ports, timeoutMs: 1000 })),
  );
  for (const end of met)
    t.match(end, { reason: { code: 'ERR_PEER_LOST', message: /within 1\.0 s but node 1 \(127\.0\.0\.1.*did not come/ } });
});

test('close ends a wait for other leaders, and a collective', async (t) => {
  const [waiting] = listenAll(1);
  const key = new Uint8Array(16);
  const connected = waiting?.connect({ nodeRank: 0, epoch: 1, key, addresses: [loopback, loopback], ports: [0, 0], timeoutMs: 60_000 });
  waiting?.close();
  await t.rejects(connected as Promise<void>, { code: 'ERR_CLOSED' });
  const meshes = await meet(2);
  const counts = [4, 4];
  const results = runOnHosts(meshes, [[gather(counts, 0), gather(counts, 0)], [gather(counts, 1)]]);
  await new Promise((resolve) => setTimeout(resolve, 100));
  meshes[0]?.close();
  t.match((await results)[0]?.outcomes[1], { code: 'ERR_CLOSED', message: /the communicator of rank 0 is closed/ });
});

test('only one interface is listened on, and one that is there', async (t) => {
  for (const address of ['0.0.0.0', '::']) t.throws(() => native().listenMesh(address), { code: 'ERR_USAGE', message: /one interface/ });
  t.throws(() => native().listenMesh('203.0.113.7'), { code: 'ERR_SYSTEM', message: /203\.0\.113\.7/ });
});

test('a place of a rank that contradicts itself is refused', async (t) => {
  const [mesh = null] = await meet(2);
  const place = {
    rank: 2,
    worldSize: 4,
    localRank: 0,
    localWorldSize: 2,
    shmFd: -1,
    numThreads: 1,
    startupTimeoutMs: 1,
    stepTimeoutMs: 1,
    stateFd: -1,
  };
  const attempt = (more: object) => () => native().createRunner({ ...place, ...more } as never);
  t.throws(attempt({ mesh: { nodeRank: 0, numNodes: 2, handle: mesh } }), {
    code: 'ERR_INTERNAL',
    message: /follow those of the nodes before/,
  });
  t.throws(attempt({ mesh: { nodeRank: 1, numNodes: 2, handle: {} } }), { code: 'ERR_INTERNAL', message: /made by listenMesh/ });
});
