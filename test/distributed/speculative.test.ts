/**
 * Speculation on several ranks: the draft model whole on each rank or sharded, the same tokens on any number of ranks,
 * recorded, replayed and traced.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { ResultSection, viewLasting } from '../../protocol/step-result.ts';
import type { LLMOptions, SpeculativeConfig } from '../../rank/index.ts';
import { PlanRecorder, readPlanLog, type StepRecord } from '../../rank/observe/plan-log.ts';
import { goodModel } from '../helpers/checkpoint-edits.ts';
import { writeBlurredModel, writePaddedModel } from '../helpers/draft-folders.ts';
import { type Answer, type Call, runJob, type Session } from '../helpers/gang.ts';
import { ndsrun } from '../helpers/launcher.ts';
import { part } from '../helpers/scale.ts';

const model = fileURLToPath(new URL('../../examples/models/story-5m', import.meta.url));
const { num_hidden_layers: numLayers } = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8')) as { num_hidden_layers: number };
const base: LLMOptions = { dtype: 'float32', numThreads: 1, maxModelLen: 128, kvCacheMemoryBytes: 8 << 20 };
const calls: readonly Call[] = [
  { type: 'generate', prompt: 'Once upon a time', params: { temperature: 0, maxTokens: 24, ignoreEos: true } },
  { type: 'generate', prompt: 'Tom', params: { seed: 1, maxTokens: 30, ignoreEos: true } },
  {
    type: 'generate',
    prompt: 'The dog',
    params: { seed: 2, temperature: 1.3, topK: 30, topP: 0.9, minP: 0.01, maxTokens: 24, ignoreEos: true },
  },
  {
    type: 'generate',
    prompt: 'One day',
    params: { seed: 3, repetitionPenalty: 1.2, frequencyPenalty: 0.4, maxTokens: 20, ignoreEos: true },
  },
];

const session = (speculativeConfig: SpeculativeConfig | undefined, more: LLMOptions = {}): Session => ({
  model,
  options: { ...base, ...more, speculativeConfig },
  rounds: [calls],
});

let blurred = '';
t.before(() => {
  blurred = join(t.testdir({}), 'blurred');
  writeBlurredModel(blurred, model);
});

let plain: readonly Answer[] | undefined;
const byRule = new Map<string, readonly Answer[]>();

for (const worldSize of part([1, 4, 3, 2], 2)) {
  const sizes = worldSize === 1 ? [1] : [1, worldSize];
  t.test(`on ${worldSize} ranks`, async (t) => {
    const fixed = { numSpeculativeTokens: 3, adaptiveK: false } as const;
    const own = sizes.map((draftTensorParallelSize) => session({ ...fixed, model, draftTensorParallelSize }));
    // Which drafts the coins judge depends on the number of drafts, which is reproducible with one step in flight.
    const judged = (['standard', 'block'] as const).flatMap((rejectionSampleMethod) =>
      [...sizes.map((size) => [size, 1] as const), [worldSize, 3] as const].map(([draftTensorParallelSize, numThreads]) =>
        session({ ...fixed, model: blurred, rejectionSampleMethod, draftTensorParallelSize }, { asyncScheduling: false, numThreads }),
      ),
    );
    const { sessions, speculation } = await runJob(worldSize, [
      ...own,
      ...judged,
      session(undefined, { numThreads: 3 }),
      session(undefined),
    ]);
    plain ??= sessions.at(-1);
    t.same(sessions.at(-1), plain, 'without drafts');
    t.same(sessions.at(-2), plain, 'on three threads');
    own.forEach((_, i) => {
      t.same(sessions[i], plain, 'coupled');
      const { numDraftTokens, numAcceptedTokens } = speculation[i] ?? {};
      t.ok(numAcceptedTokens === numDraftTokens && Number(numDraftTokens) > 60, `all of ${numDraftTokens} drafts of its own stay`);
    });
    judged.forEach(({ options: { speculativeConfig, numThreads } }, k) => {
      const { rejectionSampleMethod = '', draftTensorParallelSize } = speculativeConfig ?? {};
      const answers = sessions[own.length + k] as readonly Answer[];
      if (!byRule.has(rejectionSampleMethod)) byRule.set(rejectionSampleMethod, answers);
      t.same(
        answers,
        byRule.get(rejectionSampleMethod),
        `${rejectionSampleMethod}, a draft over ${draftTensorParallelSize}, ${numThreads} threads`,
      );
      const { numDraftTokens = 0, numAcceptedTokens = 0 } = speculation[own.length + k] ?? {};
      t.ok(numAcceptedTokens > 10 && numDraftTokens - numAcceptedTokens > 5, `${numAcceptedTokens} of ${numDraftTokens} stay`);
    });
  });
}

t.test('a prompt with ids that the draft model has no row for', async (t) => {
  const padded = join(t.testdir({}), 'padded');
  writePaddedModel(padded, 64);
  const prompt = { promptTokenIds: [484, 2050, 2111, 259, 2100] };
  const params = { seed: 9, maxTokens: 20, ignoreEos: true };
  const round: Call[] = [...calls.slice(0, 2), { type: 'generate', prompt, params }];
  const answers: (readonly Answer[])[] = [];
  for (const worldSize of [1, 2]) {
    const config = { model: goodModel, adaptiveK: false, rejectionSampleMethod: 'standard', draftTensorParallelSize: worldSize } as const;
    const options = { ...base, asyncScheduling: false, speculativeConfig: config };
    const { sessions } = await runJob(worldSize, [{ model: padded, options, rounds: [round, round.slice(2)] }]);
    answers.push(...sessions);
  }
  t.same(answers[0]?.[3], answers[0]?.[2], 'what the draft makes of them depends on nothing else');
  t.same(answers[1], answers[0], 'nor on how many ranks share it');
});

t.test('a draft model that so many ranks cannot share is refused', async (t) => {
  const shared = session({ model: goodModel, draftTensorParallelSize: 3 });
  await t.rejects(runJob(3, [shared]), { message: /story-180k|attention heads/ });
});

const everything: SpeculativeConfig = {
  method: ['draft_model', 'ngram', 'suffix'],
  numSpeculativeTokens: 4,
  promptLookupMin: 1,
  adaptiveK: false,
};
/**
 * Several tokens per sequence and step, from every proposer, with the next plan in flight before it is known how many
 * are accepted.
 */
const recorded = (more: Partial<SpeculativeConfig>): Session => {
  const repeating = { promptTokenIds: Array.from({ length: 40 }, (_, i) => 300 + (i % 5)) };
  const call: Call = { type: 'generate', prompt: repeating, params: { seed: 4, temperature: 0.5, maxTokens: 40, ignoreEos: true } };
  const options = { ...base, maxNumBatchedTokens: 48, maxNumSeqs: 4, speculativeConfig: { ...everything, model: blurred, ...more } };
  return { model, options, rounds: [[...calls, call], calls.slice(0, 1)] };
};

const isa = process.env['NDS_ISA'] ?? null;
const replay = (file: string, worldSize: number) =>
  ndsrun(['replay', file, '--quiet', `--nproc-per-node=${worldSize}`], {
    env: { OMP_NUM_THREADS: '1', ...(isa !== null && { NDS_ISA: isa }) },
  });

t.test('a recorded run is the same when it is replayed on any number of ranks', async (t) => {
  const dir = t.testdir({});
  const draft = join(dir, 'draft');
  writeBlurredModel(draft, model);
  const file = join(dir, 'plans');
  const sessions = [
    recorded({ model: draft, draftTensorParallelSize: 2 }),
    recorded({ model: draft, rejectionSampleMethod: 'block' }),
    recorded({ model: draft, draftSampleMethod: 'greedy', rejectionSampleMethod: 'standard' }),
  ];
  const { speculation } = await runJob(2, sessions, { NDS_RECORD: file });
  for (const stats of speculation) t.ok((stats?.numAcceptedTokens ?? 0) > 20, 'drafts stay');
  const results = [...readPlanLog(file)].filter((record): record is StepRecord => record.type === 'result');
  for (const worldSize of part([1, 2, 3], 2)) {
    const { code, stdout, stderr } = await replay(file, worldSize);
    t.same([code, stdout, stderr], [0, `${results.length} steps identical\n`, ''], `${worldSize} ranks`);
  }

  await t.test('a token among several that was altered is found', async (t) => {
    const bad = join(dir, 'bad');
    const recorder = new PlanRecorder(bad, false);
    let altered: number | null = null;
    for (const record of readPlanLog(file)) {
      if (record.type === 'load') recorder.load(record);
      else if (record.type === 'plan') recorder.plan(record.step, record.directory, record.bytes);
      else if (record.type === 'result') {
        const { step, directory, bytes } = record;
        const numTokens = viewLasting(directory, bytes).get(ResultSection.numTokens);
        if (altered === null && numTokens !== undefined && (numTokens[0] as number) > 2) {
          // The second token of the first sequence.
          const section = directory.findIndex((id, i) => i % 3 === 0 && id === ResultSection.tokenIds);
          const at = (directory[section + 1] as number) + 4;
          bytes[at] = (bytes[at] as number) ^ 1;
          altered = step;
        }
        recorder.result(step, directory, bytes);
      }
    }
    recorder.close();
    const { code, stderr } = await replay(bad, 2);
    t.equal(code, 78);
    t.match(
      stderr,
      new RegExp(`step ${altered} as it was recorded but it differs: slot \\d+, position \\d+: recorded token \\d+, replayed`),
    );
  });

  await t.test('another draft model is refused', async (t) => {
    writeBlurredModel(draft);
    const { code, stderr } = await replay(file, 2);
    t.equal(code, 78);
    t.match(stderr, /Expected the recorded draft model \(hash [0-9a-f]{16}\) but received .*draft \(.*ERR_MISMATCH/);
  });
});

t.test('a trace tells the operators of the draft model from those of the model', async (t) => {
  for (const worldSize of part([2, 1], 2)) {
    const file = join(t.testdir({}), 'trace.json');
    const K = 3;
    const one: Session = { ...session({ model, numSpeculativeTokens: K, adaptiveK: false }), rounds: [calls.slice(0, 1)] };
    const { speculation } = await runJob(worldSize, [one], { NDS_TRACE: file });
    const { numDrafts = 0 } = speculation[0] ?? {};
    const { traceEvents } = JSON.parse(readFileSync(file, 'utf8')) as { traceEvents: { name: string; ph: string; pid: number }[] };
    for (let rank = 0; rank < worldSize; rank++) {
      const count = (name: string) => traceEvents.filter((event) => event.ph === 'X' && event.pid === rank && event.name === name).length;
      const numSteps = count('step');
      for (const name of ['embedding', 'lm_head', 'sample', 'layer 0', `layer ${numLayers - 1}`]) t.equal(count(name), numSteps, name);
      t.equal(count('attention'), numSteps * numLayers);
      const numPasses = count('draft sample');
      t.ok(numDrafts > 3 && numPasses > numDrafts && numPasses <= numDrafts * K, `${numPasses} passes for ${numDrafts} rounds`);
      for (const name of ['draft embedding', 'draft lm_head', 'draft layer 0']) t.equal(count(name), numPasses, name);
      for (const name of ['draft attention', 'draft o_proj', 'draft mlp']) t.equal(count(name), numPasses * numLayers, name);
    }
  }
});
