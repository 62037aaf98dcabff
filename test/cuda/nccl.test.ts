/**
 * Ranks with an emulated device each, which exchange through a stand-in for NCCL alone: its sums, its gathers, and ranks that are lost.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Answer, logitsOf, runJob, type Session } from '../helpers/gang.ts';
import { readGolden, relativeError } from '../helpers/goldens.ts';
import { expectEnd, startEndless } from '../helpers/lost-rank.ts';
import { fullOnly } from '../helpers/scale.ts';
import { emulatedBackend, standIn } from './emulated.ts';
import { drafts, story, work } from './exchange-work.ts';

const backend = await emulatedBackend();
const env = { ...backend, NDS_EMULATED_DEVICES: '3', NDS_NCCL_PATH: await standIn('nccl'), NDS_CUDA_IPC: '0' };

/** Each kind of exchange: sampling with and without filters. */
const sampled = [
  { temperature: 0.8, seed: 11 },
  { seed: 12, topK: 20, topP: 0.9 },
];
const nineHeads = readGolden('smollm-nine-heads-bf16');
const longPrompt = Array.from({ length: 40 }, (_, i) => (i * i * 3 + 5) % 1000);
const ofStory = work(story, [[1, 403, 407], longPrompt], sampled);
const ofNineHeads = work(nineHeads.path, nineHeads.prompts, sampled);

/** Answers of the sessions, and the calls that NCCL received. */
async function exchanged(t: Test, worldSize: number, sessions: readonly Session[]) {
  const log = join(t.testdir(), 'calls');
  const { sessions: answers } = await runJob(worldSize, sessions, { ...env, NDS_STAND_IN_LOG: log });
  return { answers, calls: existsSync(log) ? readFileSync(log, 'utf8').split('\n') : [] };
}

let onOneRank: readonly (readonly Answer[])[] = [];
t.test('one rank exchanges nothing', async (t) => {
  const { answers, calls } = await exchanged(t, 1, [ofStory(true), ofNineHeads(true)]);
  onOneRank = answers;
  t.same(calls, []);
});

for (const [worldSize, session, i, more] of [
  [2, ofStory, 0, [ofStory(true, { asyncScheduling: false }), ofStory(true, drafts)]],
  [3, ofNineHeads, 1, []],
] as const) {
  t.test(`deterministic on ${worldSize} ranks: the bits of one rank, by gathers alone`, async (t) => {
    const { answers, calls } = await exchanged(t, worldSize, [session(true), ...more]);
    for (const answer of answers) t.same(answer, onOneRank[i]);
    t.ok(calls.includes('all-gather') && !calls.includes('all-reduce'));
    // Three ranks differ in the number of their partial sums, for which NCCL has no gather.
    t.equal(calls.includes('broadcast'), worldSize === 3);
  });

  t.test(`else on ${worldSize} ranks: NCCL adds, within the tolerance of single precision`, async (t) => {
    const { answers, calls } = await exchanged(t, worldSize, [session(false)]);
    t.ok(calls.includes('all-reduce'));
    const [answer = []] = answers;
    t.ok(relativeError(logitsOf(answer[3]), logitsOf(onOneRank[i]?.[3])) <= 2e-4);
    t.same(answer[0], onOneRank[i]?.[0], 'greedy text');
  });
}

t.test('ranks that share a device exchange through the host', async (t) => {
  const log = join(t.testdir(), 'calls');
  const shared = { ...env, NDS_EMULATED_DEVICES: '1', NDS_STAND_IN_LOG: log };
  const { sessions } = await runJob(2, [ofStory(true)], shared);
  t.same(sessions[0], onOneRank[0]);
  t.notOk(existsSync(log));
});

t.test('several devices and no NCCL', async (t) => {
  const nowhere = runJob(2, [ofStory(true)], { ...env, NDS_NCCL_PATH: '/nowhere/libnccl.so.2' });
  await t.rejects(nowhere, { message: /Expected NCCL for ranks on several devices but rank 0 found none: .*NDS_NCCL_PATH.*ERR_CUDA/s });
});

const start = (options: readonly string[] = []) => startEndless(2, 'story-180k', '', options, { NDS_TEST_DEVICE: 'cuda', ...env });

t.test('a rank that is killed', fullOnly, async (t) => {
  const gang = start();
  const pids = await gang.ranks(2);
  await gang.printed(/generated/);
  process.kill(pids[1] as number, 'SIGKILL');
  await expectEnd(t, gang, 2, 137, [/rejected ERR_PEER_LOST: Expected rank 1 to go on but it was ended by SIGKILL/]);
});

t.test('a rank that stops in mid-step is missed by name', async (t) => {
  const gang = start(['--step-timeout=3']);
  const pids = await gang.ranks(2);
  await gang.printed(/generated/);
  process.kill(pids[1] as number, 'SIGSTOP');
  await expectEnd(t, gang, 2, 75, [
    /rejected ERR_STEP_TIMEOUT: Expected progress in step \d+ but received none for 3 s: rank 1 is stopped by a signal/,
  ]);
});
