/** Followers of several nodes that are killed while many calls run: every caller gets what an undisturbed run gives. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { LLMOptions } from '../../rank/index.ts';
import { root } from '../../scripts/files.mjs';
import type { RestartsJob, RestartsResult } from '../fixtures/scripts/restarts.ts';
import { Cluster } from '../helpers/cluster.ts';
import { needsHosts } from '../helpers/hosts.ts';
import { fixture } from '../helpers/launcher.ts';
import { repeats } from '../helpers/scale.ts';

const modelPath = (name: string) => join(root, 'examples', 'models', name);
const numKills = Math.max(4, repeats(50));

const settings: Record<string, LLMOptions> = {
  plain: {},
  'a draft model': { speculativeConfig: { model: modelPath('story-180k'), numSpeculativeTokens: 4 } },
};

for (const [name, options] of Object.entries(settings)) {
  t.test(`${numKills} kills under 32 streams on 2 nodes × 2: ${name}`, needsHosts, async (t) => {
    // Hosts see each other's processes and this folder; nothing of the job's own lies there.
    const folder = mkdtempSync(join(tmpdir(), 'nds-restarts-'));
    t.teardown(() => rmSync(folder, { recursive: true }));
    mkdirSync(join(folder, 'pids'));
    const [input, output] = [join(folder, 'in.json'), join(folder, 'out.json')];
    const job: RestartsJob = { model: modelPath('story-5m'), options, numKills, numStreams: 32, seed: 12, folder: join(folder, 'pids') };
    writeFileSync(input, JSON.stringify(job));
    const cluster = await Cluster.open(t, 2);
    const limits = ['--max-restarts', String(2 * numKills + 10), '--restart-backoff', '0'];
    const nodes = cluster.startAll(['--nproc-per-node=2', ...limits, fixture('restarts.ts'), input, output]);
    for (const node of nodes) t.equal((await node.ended()).code, 0, `${node.stdout}${node.stderr}`.slice(-4000));
    const result: RestartsResult = JSON.parse(readFileSync(output, 'utf8'));
    t.comment(JSON.stringify({ ...result, wrong: result.wrong.length }));
    t.same(result.wrong, []);
    t.equal(result.numLeakedBlocks, 0);
    t.ok(result.numKills >= numKills && result.numRestarts >= numKills - 2, `${result.numKills} kills, ${result.numRestarts} restarts`);
    t.same(await cluster.hosts.leaks(), []);
  });
}
