/** Followers that are killed at random moments while many calls run: every caller gets what an undisturbed run gives. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { LLMOptions } from '../../rank/index.ts';
import { readPlanLog } from '../../rank/observe/plan-log.ts';
import type { RestartsJob, RestartsResult } from '../fixtures/scripts/restarts.ts';
import { fixture, ndsrun } from '../helpers/launcher.ts';
import { startEndless } from '../helpers/lost-rank.ts';
import { repeats } from '../helpers/scale.ts';

const modelPath = (name: string) => fileURLToPath(new URL(`../../examples/models/${name}`, import.meta.url));
const numKills = Math.max(5, repeats(50));

const settings: Record<string, LLMOptions> = {
  plain: {},
  'a draft model, few blocks': {
    speculativeConfig: { model: modelPath('story-180k'), numSpeculativeTokens: 4 },
    kvCacheMemoryBytes: 2 ** 21,
    maxModelLen: 512,
    maxNumBatchedTokens: 128,
  },
};

/** Runs the script with kills; `args` are ndsrun's. */
async function runKills(
  t: Test,
  job: Omit<RestartsJob, 'folder' | 'model' | 'seed'>,
  args: readonly string[] = [],
): Promise<RestartsResult> {
  const folder = mkdtempSync(join(tmpdir(), 'nds-restarts-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'pids'));
  const [input, output] = [join(folder, 'in.json'), join(folder, 'out.json')];
  const whole: RestartsJob = { model: modelPath('story-5m'), seed: 11, folder: join(folder, 'pids'), ...job };
  writeFileSync(input, JSON.stringify(whole));
  const limits = ['--max-restarts', String(2 * job.numKills + 10), '--restart-backoff', '0'];
  const command = ['--nproc-per-node=3', ...limits, ...args, fixture('restarts.ts'), input, output];
  const ended = await ndsrun(command, { env: { OMP_NUM_THREADS: '1' } });
  if (ended.code !== 0) throw new Error(`ended with ${ended.code}: ${ended.stdout}${ended.stderr}`);
  const result: RestartsResult = JSON.parse(readFileSync(output, 'utf8'));
  t.comment(JSON.stringify({ ...result, wrong: result.wrong.length }));
  t.same(result.wrong, []);
  t.equal(result.numLeakedBlocks, 0);
  return result;
}

for (const [name, options] of Object.entries(settings)) {
  t.test(`${numKills} kills under 32 streams: ${name}`, async (t) => {
    const result = await runKills(t, { options, numKills, numStreams: 32 });
    t.ok(result.numKills >= numKills, `${result.numKills} kills`);
    t.ok(result.numRestarts >= numKills - 2, `${result.numRestarts} restarts while the model was open`);
    t.ok(result.lostSeconds > 0);
    if (name !== 'plain') t.ok(result.numAcceptedTokens > 0);
  });
}

t.test('a plan log with restarts has a load for each, and replays', async (t) => {
  const file = join(t.testdir(), 'log.plans');
  const { numRestarts } = await runKills(t, { options: {}, numKills: 2, numStreams: 5 }, ['--record', file]);
  const numLoads = [...readPlanLog(file)].filter(({ type }) => type === 'load').length;
  // The undisturbed model, the disturbed one, once more for each restart, and the last.
  t.equal(numLoads, 3 + numRestarts);
  const { code, stdout, stderr } = await ndsrun(['replay', file, '--quiet'], { env: { OMP_NUM_THREADS: '1' } });
  t.equal(code, 0, stderr);
  t.match(stdout, /^\d+ steps identical\n$/);
});

t.test('a trace by a load option is refused where ranks may start anew', async (t) => {
  const { code, stdout } = await startEndless(2, 'story-180k', 'traces', ['--max-restarts=1']).ended();
  t.equal(code, 64);
  t.match(stdout, /failed ERR_USAGE: Expected ndsrun --trace with --max-restarts 1 but received the load option trace/);
});
