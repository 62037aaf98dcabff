/** A trace of operators on the emulated device: groups and nesting as on the CPU, fused where kernels are. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { LLMOptions } from '../../rank/index.ts';
import { runJob, type Session } from '../helpers/gang.ts';
import { checkRanks, eventsApart, readTrace } from '../helpers/trace.ts';
import { emulatedBackend, standIn } from './emulated.ts';

const story = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));
const { num_hidden_layers: numLayers } = JSON.parse(readFileSync(join(story, 'config.json'), 'utf8')) as { num_hidden_layers: number };
const backend = await emulatedBackend();
const onDevices = { ...backend, NDS_EMULATED_DEVICES: '2', NDS_NCCL_PATH: await standIn('nccl') };

const maxTokens = 7;
const session = (options: LLMOptions): Session => ({
  model: story,
  options: { device: 'cuda', deterministic: true, maxNumSeqs: 4, kvCacheMemoryBytes: 2 ** 23, ...options },
  rounds: [[{ type: 'generate', prompt: 'Once upon a time', params: { temperature: 0, maxTokens, ignoreEos: true } }]],
});

/** Runs with a trace and without, as which it gives the same tokens; returns the trace. */
async function traced(t: Test, worldSize: number, options: LLMOptions, env: Record<string, string>): Promise<string> {
  const trace = join(t.testdir({}), 'trace.json');
  const { sessions } = await runJob(worldSize, [session(options), session({ ...options, trace })], env);
  t.same(sessions[1], sessions[0], 'the tokens without a trace');
  return trace;
}

/** Residuals are added in the kernel of the next norm, but for the last: rows are gathered before it. */
const onTwoRanks = { all_reduce: numLayers * 2, add: 1 };
for (const [name, worldSize, env, more] of [
  // One kernel for a product and the residual.
  ['one rank', 1, backend, { all_reduce: 0, add: 0 }],
  ['two ranks over NCCL', 2, onDevices, onTwoRanks],
  ['two ranks that share a device', 2, backend, onTwoRanks],
] as const) {
  t.test(name, async (t) => {
    const file = await traced(t, worldSize, {}, env);
    const opsPerStep = {
      ...{ embedding: 1, lm_head: 1, sample: 1 },
      ...{ attention_in: numLayers, attention: numLayers, o_proj: numLayers, mlp: numLayers, ...more },
    };
    checkRanks(t, file, worldSize, { numSteps: maxTokens, numLayers, opsPerStep });
    const steps = readTrace(file).filter(({ name }) => name === 'step');
    const ops = readTrace(file).filter(({ name }) => name in opsPerStep || name === 'agree');
    t.ok(ops.every(({ dur }) => dur > 0));
    const sum = (events: readonly { dur: number }[]) => events.reduce((total, { dur }) => total + dur, 0);
    t.ok(sum(ops) > 0.5 * sum(steps) && sum(ops) <= sum(steps) + 1, `${sum(ops)} of ${sum(steps)} µs are operators`);
    if (worldSize === 1) return;
    for (const name of ['all_reduce', 'agree', 'step'])
      t.same(eventsApart(file, name), [], `every ${name} is at the same time on both ranks`);
  });
}

t.test('the draft model: its passes, told apart', async (t) => {
  const speculativeConfig = { model: story, numSpeculativeTokens: 3, adaptiveK: false };
  const file = await traced(t, 1, { speculativeConfig }, backend);
  const names = readTrace(file).map(({ name }) => name);
  const count = (wanted: string) => names.filter((name) => name === wanted).length;
  // The prompt and its first token; then a step of three drafts and one of one.
  t.equal(count('sample'), 3);
  for (const name of ['embedding', 'lm_head', 'sample']) t.equal(count(`draft ${name}`), 3 + 1, name);
  for (const name of ['attention_in', 'attention', 'o_proj', 'mlp']) t.equal(count(`draft ${name}`), numLayers * (3 + 1), name);
});
