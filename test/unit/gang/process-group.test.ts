/** Sockets between ranks, with all ends in this process. */
import t from 'tap';
import { Push } from 'zeromq';
import type { GangInfo } from '../../../protocol/control.ts';
import { encodeMessage, type ShardReport } from '../../../protocol/messages.ts';
import { FollowerLink } from '../../../rank/gang/follower-link.ts';
import { bindEnd } from '../../../rank/gang/transport.ts';
import { connect, envOf, identity, makeGang, openGroup, take } from '../../helpers/gang-sockets.ts';

/** Rank 1's link to a rank 0 that is not there yet. */
function openLink(gang: GangInfo, mine = identity): FollowerLink {
  return new FollowerLink({ env: envOf(1, 2), gang, ports: null, identity: mine, onLeaderGone: () => {} });
}

t.test('plans reach every rank in order, with their bytes, however fast they come', async (t) => {
  const { group, links } = await connect(t, 4);
  const frames = Array.from({ length: 500 }, (_, step) => new Uint8Array(64 + step).fill(step));
  for (const [step, frame] of frames.entries()) group.broadcast({ type: 'plan', step, directory: [1, 0, 64] }, frame);
  group.broadcast({ type: 'unload' });
  for (const received of await Promise.all(links.map((link) => take(link, 501)))) {
    t.same(received.pop(), { message: { type: 'unload' }, frame: null });
    t.ok(
      received.every(
        ({ message, frame }, step) =>
          message.type === 'plan' && message.step === step && frame?.length === 64 + step && frame[0] === step % 256,
      ),
    );
  }
});

t.test('replies are collected from all ranks, in order of rank', async (t) => {
  const { group, links } = await connect(t, 4);
  for (const rank of [3, 1, 2]) links[rank - 1]?.send({ type: 'unloaded', rank });
  t.same(
    (await group.collect('unloaded', 20_000)).map(({ rank }) => rank),
    [1, 2, 3],
  );
});

t.test('ranks report the progress of a load, where it is asked for, and until they have loaded', async (t) => {
  const { group, links } = await connect(t, 3);
  const reports: number[][] = [];
  const collect = () => group.collect('unloaded', 20_000, (...report) => reports.push(report));
  for (const loadedBytes of [5, 2 ** 40]) links[1]?.send({ type: 'progress', rank: 2, loadedBytes });
  links[1]?.send({ type: 'unloaded', rank: 2 });
  links[0]?.send({ type: 'unloaded', rank: 1 });
  await collect();
  t.same(reports, [
    [2, 5],
    [2, 2 ** 40],
  ]);
  links[0]?.send({ type: 'progress', rank: 1, loadedBytes: 1 });
  await t.rejects(group.collect('unloaded', 20_000), { code: 'ERR_PROTOCOL', message: /received 'progress' from rank 1/ });
  links[0]?.send({ type: 'unloaded', rank: 1 });
  links[0]?.send({ type: 'progress', rank: 1, loadedBytes: 1 });
  await t.rejects(collect(), { code: 'ERR_PROTOCOL' }, 'a rank that has answered loads no more');
});

t.test('a rank that goes on loading is waited for; one that reports the same again is not', async (t) => {
  const { group, links } = await connect(t, 3);
  let numReports = 0;
  // Each report comes in answer to the one before; all together take longer than the timeout.
  const report = () => {
    numReports++;
    if (numReports === 25) links.forEach((link, i) => link.send({ type: 'unloaded', rank: i + 1 }));
    else setTimeout(() => links[1]?.send({ type: 'progress', rank: 2, loadedBytes: numReports }), 100);
  };
  report();
  t.equal((await group.collect('unloaded', 2000, report)).length, 2);
  const again = setInterval(() => links[1]?.send({ type: 'progress', rank: 2, loadedBytes: 7 }), 20);
  t.teardown(() => clearInterval(again));
  await t.rejects(
    group.collect('unloaded', 300, () => {}),
    { code: 'ERR_PEER_LOST', message: /none from rank 1, 2/ },
  );
});

t.test("a rank's error rejects under its own code", async (t) => {
  const { group, links } = await connect(t, 3);
  links[1]?.send({ type: 'error', rank: 2, code: 'ERR_TENSOR', message: 'no such tensor' });
  await t.rejects(group.collect('loaded', 20_000), { code: 'ERR_TENSOR', message: 'Rank 2: no such tensor' });
});

t.test('ranks that do not answer are named', async (t) => {
  const { group, links } = await connect(t, 4);
  const shard = {
    rank: 2,
    heads: [0, 1],
    kvHeads: [0, 1],
    mlpColumns: [0, 1],
    vocabRows: [0, 1],
    weightBytes: 0,
    kvBytes: 0,
    scratchBytes: 0,
    replicatedBytes: 0,
  } as ShardReport;
  links[1]?.send({ type: 'loaded', rank: 2, shard });
  await t.rejects(group.collect('loaded', 100), {
    code: 'ERR_PEER_LOST',
    message: "Expected 'loaded' within 0.1 s but received none from rank 1, 3",
  });
});

t.test('answers out of turn, from nobody, or out of sequence are refused', async (t) => {
  const { gangs, group, links } = await connect(t, 2);
  links[0]?.send({ type: 'unloaded', rank: 1 });
  await t.rejects(group.collect('loaded', 20_000), {
    code: 'ERR_PROTOCOL',
    message: /one 'loaded' from each rank but received 'unloaded' from rank 1/,
  });
  const stranger = new Push({ linger: 0 });
  t.teardown(() => stranger.close());
  stranger.connect(bindEnd(gangs[0] as GangInfo, 'up').address);
  await stranger.send(encodeMessage(0, 0, { type: 'unloaded', rank: 2 }));
  await t.rejects(group.collect('unloaded', 20_000), { code: 'ERR_PROTOCOL', message: 'Expected a rank from 1 to 1 but received 2' });
  await stranger.send(encodeMessage(0, 9, { type: 'unloaded', rank: 1 }));
  await t.rejects(group.collect('unloaded', 20_000), {
    code: 'ERR_PROTOCOL',
    message: /Expected message 2 on the channel from rank 1 but received 9: a gap/,
  });
  await stranger.send([encodeMessage(0, 2, { type: 'unloaded', rank: 1 }), 'more']);
  await t.rejects(group.collect('unloaded', 20_000), { code: 'ERR_PROTOCOL', message: 'Expected a message of 1 frame but received 2' });
});

t.test('a follower refuses gaps, repeats and missing frames', async (t) => {
  for (const [frames, message] of [
    [[encodeMessage(0, 1, { type: 'unload' })], /Expected message 0 on the channel to rank 1 but received 1: a gap/],
    [[encodeMessage(0, 0, { type: 'plan', step: 0, directory: [] })], /'plan' as 2 frames but received 1/],
    [[encodeMessage(0, 0, { type: 'unload' }), 'more'], /'unload' as 1 frames but received 2/],
    [[encodeMessage(0, 0, { type: 'plan', step: 0, directory: [] }), 'a', 'b'], /'plan' as 2 frames but received 3/],
    [[Uint8Array.of(0xc1)], /type byte 0xc1/],
    [[encodeMessage(1, 0, { type: 'unload' })], /a message of epoch 0 on the channel to rank 1 but received one of epoch 1/],
  ] as const) {
    const [gang] = makeGang(t, 2) as [GangInfo];
    const leader = new Push({ linger: 0 });
    await leader.bind(bindEnd(gang, 'plan-1').address);
    const link = openLink(gang);
    await leader.send([...frames]);
    await t.rejects(take(link, 1), { code: 'ERR_PROTOCOL', message });
    leader.close();
    link.close();
  }
});

t.test('ranks of another version, instruction set or world are refused', async (t) => {
  for (const [mine, message] of [
    [{ ...identity, version: '1.2.4' }, 'Expected version 1.2.3 on rank 1, as on rank 0, but received 1.2.4'],
    [{ ...identity, isa: 'neon' }, 'Expected isa avx2 on rank 1, as on rank 0, but received neon'],
    [{ ...identity, isa: 'portable' }, 'Expected isa avx2 on rank 1, as on rank 0, but received portable'],
    [{ ...identity, cudaBuild: 'abc' }, 'Expected cudaBuild none on rank 1, as on rank 0, but received abc'],
  ] as const) {
    const [gang] = makeGang(t, 2) as [GangInfo];
    const link = openLink(gang, mine);
    const { group } = openGroup(t, gang, 2);
    await t.rejects(group.meet(identity), { code: 'ERR_MISMATCH', message });
    group.close();
    link.close();
  }
});

t.test('a rank that never comes is named', async (t) => {
  const [gang] = makeGang(t, 2) as [GangInfo];
  const { group } = openGroup(t, gang, 2, { timeoutMs: 50 });
  await t.rejects(group.meet(identity), {
    code: 'ERR_PEER_LOST',
    message: /'hello' within 0.05 s but received none from rank 1/,
  });
});

t.test('closing tells every rank and ends what waits', async (t) => {
  const { group, allGone } = await connect(t, 3);
  const waiting = t.rejects(group.collect('loaded', 20_000), { code: 'ERR_CLOSED' });
  group.close();
  await waiting;
  await allGone();
});
