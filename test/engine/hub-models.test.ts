/** `LLM.load` with names of models: shipped, of the hub, on several ranks, as a draft. */
import { join } from 'node:path';
import t from 'tap';
import { resolveModel } from '../../rank/hub/resolve-model.ts';
import { LLM, type LoadProgress } from '../../rank/index.ts';
import { runJob } from '../helpers/gang.ts';
import { startHub, tinyFiles, tinyRepo } from '../helpers/hub.ts';

const root = new URL('../..', import.meta.url).pathname;
const rounds = [[{ type: 'generate', prompt: 'Once upon', params: { temperature: 0, maxTokens: 6 } }]] as const;

/** Variables of this process, until the test ends. */
function setEnvironment(t: { teardown(end: () => void): unknown }, variables: Record<string, string>): void {
  for (const [name, value] of Object.entries(variables)) {
    const before = process.env[name];
    process.env[name] = value;
    t.teardown(() => {
      if (before === undefined) delete process.env[name];
      else process.env[name] = before;
    });
  }
}

t.test('a repository is downloaded once, by rank 0, and is the same model', async (t) => {
  const hub = await startHub(t);
  const env = { HF_HOME: t.testdir(), HF_ENDPOINT: hub.url };
  const draft = { speculativeConfig: { model: tinyRepo, numSpeculativeTokens: 2 } };
  const sessions = [
    { model: tinyRepo, options: {}, rounds },
    { model: 'nds:story-180k', options: draft, rounds },
  ];
  const { sessions: answers } = await runJob(2, sessions, env);
  t.equal(hub.requests.filter((line) => line.includes('/lfs/')).length, 1);
  const [expected] = (await runJob(1, [{ model: join(root, 'examples/models/story-180k'), options: {}, rounds }])).sessions;
  t.same(answers, [expected, expected]);
});

t.test('progress of a download', async (t) => {
  const hub = await startHub(t);
  setEnvironment(t, { HF_HOME: t.testdir(), HF_ENDPOINT: hub.url });
  const events: LoadProgress[] = [];
  const llm = await LLM.load(tinyRepo, { onProgress: (event) => events.push(event) });
  await llm.close();
  const downloads = events.filter(({ phase }) => phase === 'download');
  const last = new Map(downloads.map(({ file, doneBytes, totalBytes }) => [file, [doneBytes, totalBytes]]));
  const files = ['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json', 'model.safetensors'];
  t.same([...last.keys()].sort(), files.sort());
  for (const [file, amounts] of last) t.same(amounts, Array(2).fill(tinyFiles()[file ?? '']?.length), String(file));
  await t.rejects(LLM.load(tinyRepo, { onProgress: 'yes' as never }), { code: 'ERR_USAGE', message: /a function for onProgress/ });
});

t.test('what is no model', async (t) => {
  const folder = t.testdir({ org: { name: {} }, 'q4.gguf': '' });
  setEnvironment(t, { HF_HOME: join(folder, 'hf'), HF_HUB_OFFLINE: '1' });
  const cases: [model: string, message: RegExp][] = [
    ['org/none', /org\/none from the hub.*HF_HUB_OFFLINE.*\.\/none/],
    ['./org/none', /\.\/org\/none, where nothing is/],
    ['/org/none', /\/org\/none, where nothing is/],
    ['~/none', /~\/none, where nothing is/],
    ['none', /none, where nothing is/],
    ['story-5m', /did you mean nds:story-5m/],
    ['../models/story5m', /did you mean nds:story-5m/],
    ['nds:story', /nds:story-5m or nds:story-180k but received nds:story/],
    ['org/model-q4.gguf', /GGUF file org\/model-q4\.gguf: give the repository/],
    [join(folder, 'q4.gguf'), /GGUF file .*q4\.gguf: give the repository/],
    [join(root, 'examples/models/story-5m/model.safetensors'), /model\.safetensors: give the folder/],
    [join(root, 'package.json'), /the file .*package\.json/],
  ];
  for (const [model, message] of cases) {
    await t.rejects(resolveModel(model), { code: 'ERR_MODEL_NOT_FOUND', message }, model);
    await t.rejects(LLM.load(model), { code: 'ERR_MODEL_NOT_FOUND', message }, model);
  }
  t.equal(await resolveModel(join(folder, 'org/name')), join(folder, 'org/name'), 'an existing folder');
  t.equal(await resolveModel('nds:story-180k'), join(root, 'examples/models/story-180k'));
});
