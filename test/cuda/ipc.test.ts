/** Ranks with an emulated device each, which add small sums from each other's memory: the same bits, fewer calls of NCCL, and ranks that are lost. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Answer, runJob, type Session } from '../helpers/gang.ts';
import { readGolden } from '../helpers/goldens.ts';
import { expectEnd, startEndless } from '../helpers/lost-rank.ts';
import { fullOnly } from '../helpers/scale.ts';
import { emulatedBackend, standIn } from './emulated.ts';
import { drafts, story, work } from './exchange-work.ts';

const backend = { ...(await emulatedBackend()), NDS_EMULATED_DEVICES: '3' };
const env = { ...backend, NDS_NCCL_PATH: await standIn('nccl') };

/** Requests decode long enough for graphs to be launched again. */
const sampled = [{ seed: 12, topK: 20, topP: 0.9 }];
const nineHeads = readGolden('smollm-nine-heads-bf16');
const ofStory = work(
  story,
  [
    [1, 403, 407],
    [1, 261, 378, 400],
  ],
  sampled,
);
const ofNineHeads = work(nineHeads.path, nineHeads.prompts, sampled);
// 2100 rows in one step: a rank's partial sums of 64 columns are then more than 512 KiB.
const longPrompts = [0, 1, 2].map((p) => Array.from({ length: 700 }, (_, i) => (i * i * 3 + i * p + p) % 500));
const ofMany = (deterministic: boolean): Session => ({
  ...ofStory(deterministic, { maxNumBatchedTokens: 2112 }),
  rounds: [
    longPrompts.map((promptTokenIds) => ({ type: 'generate', prompt: { promptTokenIds }, params: { maxTokens: 4, temperature: 0 } })),
  ],
});

/** Answers of the sessions, and how often NCCL was called for what. */
async function exchanged(t: Test, worldSize: number, sessions: readonly Session[], more: Record<string, string> = {}) {
  const log = join(t.testdir(), 'calls');
  const { sessions: answers, allReduceBytes } = await runJob(worldSize, sessions, { ...env, NDS_STAND_IN_LOG: log, ...more });
  const calls = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : [];
  const count = (name: string) => calls.filter((call) => call === name).length;
  return { answers, allReduceBytes, allReduces: count('all-reduce'), gathers: count('all-gather') + count('broadcast') };
}

let onOneRank: readonly (readonly Answer[])[] = [];
t.test('one rank', async (t) => {
  const { answers } = await exchanged(t, 1, [ofStory(true), ofNineHeads(true)]);
  onOneRank = answers;
  t.equal(answers.length, 2);
});

for (const [worldSize, session, i, more] of [
  [2, ofStory, 0, [ofStory(true, { asyncScheduling: false }), ofStory(true, drafts)]],
  [3, ofNineHeads, 1, []],
] as const) {
  t.test(`${worldSize} ranks: the bits of one rank, in either mode`, async (t) => {
    // In float32 both modes take the same products, and here they take the same sums.
    const sessions = [session(true), session(false), ...more];
    const shared = await exchanged(t, worldSize, sessions);
    for (const answer of shared.answers) t.same(answer, onOneRank[i]);
    t.equal(shared.allReduces, 0);
    for (const bytes of shared.allReduceBytes) t.ok(bytes > 0, `${bytes} bytes of partial sums`);
    const here = await exchanged(t, worldSize, [session(true)]);
    const byNccl = await exchanged(t, worldSize, [session(true)], { NDS_CUDA_IPC: '0' });
    t.same(here.answers, byNccl.answers);
    t.ok(here.gathers > 0 && here.gathers < byNccl.gathers, `${here.gathers} gathers instead of ${byNccl.gathers}`);
  });
}

t.test('large sums are left to NCCL, and small ones of later steps are not', fullOnly, async (t) => {
  const alone = await exchanged(t, 1, [ofMany(true)]);
  const exact = await exchanged(t, 2, [ofMany(true)]);
  t.same(exact.answers, alone.answers);
  t.equal(exact.allReduces, 0);
  const byDefault = await exchanged(t, 2, [ofMany(false)]);
  t.ok(byDefault.allReduces > 0 && byDefault.allReduceBytes.every((bytes) => bytes > 2 ** 19));
});

t.test('devices that do not reach each other leave sums to NCCL', async (t) => {
  const { allReduces } = await exchanged(t, 2, [ofStory(false)], { NDS_EMULATED_PEERS: '0' });
  t.ok(allReduces > 0);
});

t.test('what is not added from memory goes through the host where there is no NCCL', fullOnly, async (t) => {
  const { sessions } = await runJob(2, [ofStory(true)], backend);
  t.same(sessions[0], onOneRank[0]);
});

t.test('NDS_CUDA_IPC is 0 or 1', async (t) => {
  const wrong = runJob(2, [ofStory(true)], { ...env, NDS_CUDA_IPC: 'no' });
  await t.rejects(wrong, { message: /Expected NDS_CUDA_IPC to be 0 or 1 but received no.*ERR_USAGE/s });
});

const start = (numRanks: number, options: readonly string[] = []) =>
  startEndless(numRanks, 'story-180k', '', options, { NDS_TEST_DEVICE: 'cuda', ...env });

t.test('a rank that is killed', fullOnly, async (t) => {
  const gang = start(2);
  const pids = await gang.ranks(2);
  await gang.printed(/generated/);
  process.kill(pids[1] as number, 'SIGKILL');
  await expectEnd(t, gang, 2, 137, [/rejected ERR_PEER_LOST: Expected rank 1 to go on but it was ended by SIGKILL/]);
});

t.test('a rank that stops in mid-step is missed by name', fullOnly, async (t) => {
  const gang = start(2, ['--step-timeout=3']);
  const pids = await gang.ranks(2);
  await gang.printed(/generated/);
  process.kill(pids[1] as number, 'SIGSTOP');
  await expectEnd(t, gang, 2, 75, [
    /rejected ERR_STEP_TIMEOUT: Expected progress in step \d+ but received none for 3 s: rank 1 is stopped by a signal/,
  ]);
});
