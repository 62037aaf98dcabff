/** Followers that are killed at random moments while many calls run: every caller gets what an undisturbed run gives. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { LLMOptions } from '../../rank/index.ts';
import type { RestartsJob, RestartsResult } from '../fixtures/scripts/restarts.ts';
import { fixture, ndsrun } from '../helpers/launcher.ts';
import { isFull } from '../helpers/scale.ts';

const modelPath = (name: string) => fileURLToPath(new URL(`../../examples/models/${name}`, import.meta.url));
const numKills = isFull ? 50 : 5;

const settings: Record<string, LLMOptions> = {
  plain: {},
  'a draft model, few blocks': {
    speculativeConfig: { model: modelPath('story-180k'), numSpeculativeTokens: 4 },
    kvCacheMemoryBytes: 2 ** 21,
    maxModelLen: 512,
    maxNumBatchedTokens: 128,
  },
};

for (const [name, options] of Object.entries(settings)) {
  t.test(`${numKills} kills under 32 streams: ${name}`, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'nds-restarts-'));
    t.teardown(() => rmSync(folder, { recursive: true }));
    mkdirSync(join(folder, 'pids'));
    const [input, output] = [join(folder, 'in.json'), join(folder, 'out.json')];
    const job: RestartsJob = { model: modelPath('story-5m'), options, numKills, numStreams: 32, seed: 11, folder: join(folder, 'pids') };
    writeFileSync(input, JSON.stringify(job));
    const limits = ['--max-restarts', String(2 * numKills + 10), '--restart-backoff', '0'];
    const ended = await ndsrun(['--nproc-per-node=3', ...limits, fixture('restarts.ts'), input, output], {
      env: { OMP_NUM_THREADS: '1' },
    });
    if (ended.code !== 0) return t.fail(`ended with ${ended.code}: ${ended.stdout}${ended.stderr}`);
    const result: RestartsResult = JSON.parse(readFileSync(output, 'utf8'));
    t.comment(JSON.stringify({ ...result, wrong: result.wrong.length }));
    t.same(result.wrong, []);
    t.equal(result.numLeakedBlocks, 0);
    t.ok(result.numKills >= numKills, `${result.numKills} kills`);
    t.ok(result.numRestarts >= numKills - 2, `${result.numRestarts} restarts while the model was open`);
    t.ok(result.lostSeconds > 0);
    if (name !== 'plain') t.ok(result.numAcceptedTokens > 0 && result.numPreemptions > 0);
  });
}
