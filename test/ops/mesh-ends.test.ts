/** How connections between hosts end: what a leader that leaves costs the others, and what is left of them. */
import { readdirSync, readlinkSync } from 'node:fs';
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { type Test, test } from 'tap';
import { native } from '../../rank/native.ts';
import type { Op } from '../helpers/comm-gang.ts';
import { connectAll, listenAll, loopback, meet, runOnHosts } from '../helpers/comm-hosts.ts';

const gather = (counts: number[], rank: number): Op => ({ op: 'allGather', counts, data: new Uint8Array(counts[rank] as number) });

/** A port before another, of which `onCall` gets each connection's two ends. */
async function portBefore(t: Test, port: number, onCall: (caller: Socket, callee: Socket) => void): Promise<number> {
  const sockets: Socket[] = [];
  const server = createServer((caller) => {
    const callee = connectTcp(port, loopback);
    sockets.push(caller, callee);
    for (const socket of [caller, callee]) socket.on('error', () => {});
    caller.on('close', () => callee.destroy());
    callee.on('close', () => caller.destroy());
    onCall(caller, callee);
  });
  await new Promise<void>((resolve) => server.listen(0, loopback, resolve));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as { port: number }).port;
}

test('a leader that leaves while another only sends to it ends that one too', async (t) => {
  // Far more than sockets hold.
  const counts = [4, 64 << 20];
  const handshakeBytes = 40 + 16;
  const meshes = await meet(2, (from, to, port) => {
    if (from !== 1 || to !== 0) return port;
    return portBefore(t, port, (caller, callee) => {
      callee.pipe(caller);
      let numBytes = 0;
      caller.on('data', (chunk) => {
        numBytes += chunk.length;
        callee.write(chunk);
        // Node 1's frames do not arrive.
        if (numBytes > handshakeBytes) {
          caller.pause();
          setTimeout(() => meshes[0]?.close(), 200);
        }
      });
    });
  });
  const start = performance.now();
  const [first, second] = await runOnHosts(meshes, [[gather(counts, 0)], [gather(counts, 1)]], { startupTimeoutMs: 200_000 });
  t.match(first?.outcomes[0], { code: 'ERR_CLOSED', message: /the communicator of rank 0 is closed/ });
  t.match(second?.outcomes[0], { code: 'ERR_CLOSED', message: /rank 1 waited .* for rank 0 \(node 0, 127.0.0.1\) until .* left/ });
  t.ok(performance.now() - start < 100_000, 'before its timeout');
});

test('a call that is not answered is made anew', async (t) => {
  const meshes = listenAll(2);
  let numCalls = 0;
  const port = await portBefore(t, meshes[0]?.port as number, (caller, callee) => {
    // Nobody at the other end of the first, as after a link was cut.
    if (numCalls++ === 0) return;
    caller.pipe(callee);
    callee.pipe(caller);
  });
  const met = await connectAll(meshes, undefined, (from, to, own) => (from === 1 && to === 0 ? port : own));
  t.same(
    met.map(({ status }) => status),
    ['fulfilled', 'fulfilled'],
  );
  t.equal(numCalls, 2);
});

test('nothing stays open of meshes that are closed, with a collective or without', { skip: process.platform !== 'linux' }, async (t) => {
  const numOpen = () =>
    readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return /^(socket|pipe):/.test(readlinkSync(`/proc/self/fd/${fd}`));
      } catch {
        return false;
      }
    }).length;
  const before = numOpen();
  const counts = [100_000, 100_000, 100_000];
  const met = await meet(3);
  t.ok(numOpen() >= before + 6);
  const scripts = counts.map((_, rank) => Array.from({ length: 500 }, () => gather(counts, rank)));
  const running = runOnHosts(met, scripts);
  await delay(20);
  for (const mesh of met) mesh.close();
  await running;
  // One that has not met, and one whose meeting has failed.
  const [waiting, alone] = listenAll(2);
  const options = { nodeRank: 0, epoch: 1, key: new Uint8Array(16), addresses: [loopback, loopback], ports: [0, 0], timeoutMs: 60_000 };
  const connected = t.rejects(waiting?.connect(options) as Promise<void>, { code: 'ERR_CLOSED' });
  waiting?.close();
  await connected;
  await t.rejects(alone?.connect({ ...options, timeoutMs: 1 }) as Promise<void>, { code: 'ERR_PEER_LOST' });
  alone?.close();
  alone?.close();
  await t.rejects(async () => alone?.connect(options), { code: 'ERR_CLOSED' });
  while (numOpen() > before) await delay(10);
  t.pass('all are closed');
});

test('an address of all interfaces is refused however it is written, and a name is none', async (t) => {
  for (const address of ['0.0.0.0', '::', '::ffff:0.0.0.0', '0']) {
    t.throws(() => native().listenMesh(address), { code: 'ERR_USAGE', message: /one interface/ }, address);
  }
  t.throws(() => native().listenMesh('localhost'), { code: 'ERR_SYSTEM', message: /localhost/ });
});
