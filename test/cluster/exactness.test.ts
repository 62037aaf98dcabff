/** Several nodes generate, bit for bit, what one process generates, however they learn their places. */
import { join } from 'node:path';
import t from 'tap';
import { root } from '../../scripts/files.mjs';
import { byOptions, Cluster, ways } from '../helpers/cluster.ts';
import { type Answer, type Call, runJob, type Session } from '../helpers/gang.ts';
import { needsHosts } from '../helpers/hosts.ts';

const models = join(root, 'examples', 'models');
const model = join(models, 'story-5m');
const longPrompt = Array.from({ length: 150 }, (_, i) => (i * i * 3 + 17 * i + 5) % 2000);
const greedy: Call = { type: 'generate', prompt: 'Once upon a time', params: { temperature: 0, maxTokens: 40 } };
const calls: readonly Call[] = [
  greedy,
  { type: 'generate', prompt: 'The little dog was', params: { temperature: 0.8, seed: 11, topK: 40, topP: 0.95, maxTokens: 50 } },
  { type: 'generate', prompt: { promptTokenIds: longPrompt }, params: { seed: 12, logprobs: 3, ignoreEos: true, maxTokens: 40 } },
  { type: 'generate', prompt: 'One day a cat', params: { temperature: 0, logprobs: 0, repetitionPenalty: 1.3, maxTokens: 30 } },
  { type: 'logits', promptTokenIds: longPrompt.slice(0, 70) },
];
const speculativeConfig = { model: join(models, 'story-180k'), numSpeculativeTokens: 4, adaptiveK: false };
const sessions: readonly Session[] = [
  { model, options: { dtype: 'float32', numThreads: 1 }, rounds: [calls] },
  { model, options: { dtype: 'bfloat16', numThreads: 1, maxNumSeqs: 4, maxNumBatchedTokens: 57 }, rounds: [calls] },
  { model, options: { dtype: 'float32', numThreads: 1, speculativeConfig }, rounds: [calls.filter(({ type }) => type === 'generate')] },
];
const short: readonly Session[] = [{ model, options: { dtype: 'float32', numThreads: 1 }, rounds: [[greedy]] }];

/** Answers of one process, made once. */
let reference: Promise<readonly (readonly Answer[])[]> | undefined;
function onOneProcess(): Promise<readonly (readonly Answer[])[]> {
  reference ??= runJob(1, sessions).then(({ sessions }) => sessions);
  return reference;
}

for (const [numNodes, ranksPerNode] of [
  [2, 2],
  [3, 1],
] as const) {
  t.test(`${numNodes} nodes × ${ranksPerNode}`, needsHosts, async (t) => {
    const expected = await onOneProcess();
    t.ok(
      expected[0]?.[2]?.logprobs?.every((text) => text !== ''),
      'log-probabilities are compared',
    );
    const cluster = await Cluster.open(t, numNodes);
    const result = await cluster.runJob(ranksPerNode, sessions, byOptions);
    t.same(result.sessions, expected);
    t.ok((result.speculation[2]?.numAcceptedTokens ?? 0) > 0, 'drafts were accepted');
    t.ok((result.exchangedBytes[0] ?? 0) > 0, 'ranks exchanged partial sums');
    t.same(await cluster.hosts.leaks(), []);
  });
}

for (const [name, way] of Object.entries(ways)) {
  t.test(`places by ${name}`, needsHosts, async (t) => {
    const cluster = await Cluster.open(t, 2);
    const { sessions } = await cluster.runJob(2, short, way);
    t.same(sessions[0]?.[0], (await onOneProcess())[0]?.[0]);
    t.same(await cluster.hosts.leaks(), []);
  });
}
