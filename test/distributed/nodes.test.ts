/** Ranks of several nodes on loopback: what one process generates, from a model that each node finds for itself. */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { root } from '../../scripts/files.mjs';
import { runJob, type Session } from '../helpers/gang.ts';
import { runOnNodes } from '../helpers/node-ranks.ts';

const models = join(root, 'examples', 'models');
const rounds: Session['rounds'] = [
  [
    { type: 'generate', prompt: 'Once upon a time', params: { temperature: 0, maxTokens: 30 } },
    { type: 'generate', prompt: 'The little dog', params: { temperature: 0.8, seed: 5, logprobs: 2, maxTokens: 30 } },
  ],
];
const options = { dtype: 'float32', numThreads: 1 } as const;
const session = (model: string, draft?: string): Session => {
  const speculativeConfig = draft === undefined ? {} : { speculativeConfig: { model: draft, numSpeculativeTokens: 3 } };
  return { model, options: { ...options, ...speculativeConfig }, rounds };
};

/** `[numNodes]` folders, each with its own copies of the models as `models/target` and `models/draft`. */
function makeNodes(t: Test, numNodes: number, change: (folder: string, node: number) => void = () => {}): string[] {
  const folder = t.testdir();
  return Array.from({ length: numNodes }, (_, node) => {
    const own = join(folder, String(node));
    mkdirSync(join(own, 'models'), { recursive: true });
    cpSync(join(models, 'story-5m'), join(own, 'models', 'target'), { recursive: true });
    cpSync(join(models, 'story-180k'), join(own, 'models', 'draft'), { recursive: true });
    change(own, node);
    return own;
  });
}

for (const [numNodes, ranksPerNode] of [
  [2, 2],
  [3, 1],
] as const) {
  t.test(`${numNodes} nodes of ${ranksPerNode} ranks, by paths of each node's own`, async (t) => {
    const sessions = [session('./models/target'), session('./models/target', 'models/draft'), session('nds:story-5m')];
    const alone = [session('nds:story-5m'), session('nds:story-5m', 'nds:story-180k'), session('nds:story-5m')];
    const expected = await runJob(1, alone);
    const { job, exitCodes, stderr } = await runOnNodes(t, ranksPerNode, sessions, makeNodes(t, numNodes));
    t.same(exitCodes, Array(numNodes * ranksPerNode).fill(0), stderr);
    t.same(job?.sessions, expected.sessions);
    t.ok((job?.exchangedBytes[0] ?? 0) > 0);
  });
}

t.test('a model that one node lacks, and a model that is another, end the job by name', async (t) => {
  const sessions = [session('./models/target', 'models/draft')];
  const missing = makeNodes(t, 2);
  const lacks = missing.map((folder, node) => (node === 1 ? join(folder, 'models') : folder));
  const first = await runOnNodes(t, 1, sessions, lacks, [{}, { HF_HUB_OFFLINE: '1' }]);
  t.same(first.exitCodes[1], 65, first.stderr);
  t.match(first.errors[1], { code: 'ERR_MODEL_NOT_FOUND', message: /on node 1 \(.*looked for as .*\/1\/models\/models\/target/ });
  t.not(first.exitCodes[0], 0);
  const another = makeNodes(t, 2, (folder, node) => {
    const config = join(folder, 'models', 'draft', 'config.json');
    if (node === 1) writeFileSync(config, `${readFileSync(config, 'utf8')}\n`);
  });
  const second = await runOnNodes(t, 1, sessions, another);
  t.same(second.exitCodes[1], 78, second.stderr);
  t.match(second.errors[1], {
    code: 'ERR_MISMATCH',
    message: /on node 1 .* with the hash [0-9a-f]{64} of .*draft, but received [0-9a-f]{64} of/,
  });
  t.match(second.errors[0], { code: /ERR_MISMATCH|ERR_PEER_LOST/, message: /[Rr]ank 1/ });
});
