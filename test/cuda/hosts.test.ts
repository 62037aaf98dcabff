/** Ranks with an emulated device each on several hosts: the bits of one rank, through host memory or by NCCL, never from each other's memory. */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Answer, runJob, type Session } from '../helpers/gang.ts';
import { readGolden } from '../helpers/goldens.ts';
import { runOnNodes } from '../helpers/node-ranks.ts';
import { emulatedBackend, standIn } from './emulated.ts';
import { work } from './exchange-work.ts';

const backend = { ...(await emulatedBackend()), NDS_EMULATED_DEVICES: '2' };
const nccl = { NDS_NCCL_PATH: await standIn('nccl') };
const nineHeads = readGolden('smollm-nine-heads-bf16');
const session = work(nineHeads.path, nineHeads.prompts, [{ seed: 12, topK: 20 }]);

/** Answers of a session on nodes whose devices have the same addresses, and how often NCCL was called for what. */
async function onNodes(t: Test, numNodes: number, ranksPerNode: number, one: Session, more: Record<string, string>) {
  const folder = t.testdir();
  const log = join(folder, 'calls');
  const env = { ...backend, NDS_STAND_IN_LOG: log, ...more };
  const cwds = Array.from({ length: numNodes }, (_, node) => join(folder, String(node)));
  for (const cwd of cwds) mkdirSync(cwd);
  const { job, exitCodes, stderr } = await runOnNodes(
    t,
    ranksPerNode,
    [one],
    cwds,
    cwds.map(() => env),
  );
  t.same(exitCodes, Array(numNodes * ranksPerNode).fill(0), stderr);
  const calls = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : [];
  return { answers: job?.sessions[0], allReduces: calls.filter((call) => call === 'all-reduce').length, numCalls: calls.length };
}

let onOneRank: readonly Answer[] | undefined;
t.test('one rank', async (t) => {
  onOneRank = (await runJob(1, [session(true)], backend)).sessions[0];
  t.equal(onOneRank?.length, 3);
});

for (const [numNodes, ranksPerNode] of [
  [2, 1],
  [2, 2],
] as const) {
  t.test(`${numNodes} hosts of ${ranksPerNode}: through host memory, the bits of one rank`, async (t) => {
    const { answers, numCalls } = await onNodes(t, numNodes, ranksPerNode, session(true), {});
    t.same(answers, onOneRank);
    t.equal(numCalls, 0);
  });
}

t.test('by NCCL, whose id comes from another host, the bits of one rank', async (t) => {
  const free = await onNodes(t, 2, 1, session(true), nccl);
  t.same(free.answers, onOneRank);
  t.equal(free.allReduces, 0);
  t.ok(free.numCalls > 0, 'devices of two hosts are two devices, whatever their addresses');
});

t.test('NCCL adds where it may, and no memory is shared between hosts', async (t) => {
  const { answers, allReduces } = await onNodes(t, 2, 1, session(false), nccl);
  t.ok(allReduces > 0, `${allReduces} all-reduces of NCCL`);
  t.same(answers?.[0], onOneRank?.[0], 'greedy text');
});
