/** `ndsrun pull`, `ndsrun models`, and names of models on the command line, against a small hub on loopback. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { type Hub, sha256, startHub, tinyFiles, tinyRepo } from '../helpers/hub.ts';
import { ndsrun, Running } from '../helpers/launcher.ts';

const weights = tinyFiles()['model.safetensors'] as Buffer;

interface Start {
  readonly hub: Hub;
  readonly env: Record<string, string>;
  readonly repoFolder: string;
  readonly snapshot: string;
}

async function start(t: Test): Promise<Start> {
  const hub = await startHub(t);
  const HF_HOME = t.testdir();
  const repoFolder = join(HF_HOME, 'hub', 'models--nano-test--tiny');
  const snapshot = join(repoFolder, 'snapshots', hub.repos[tinyRepo]?.commit ?? '');
  return { hub, env: { HF_HOME, HF_ENDPOINT: hub.url }, repoFolder, snapshot };
}

const unfinished = ({ repoFolder }: Start) => {
  const blobs = join(repoFolder, 'blobs');
  return existsSync(blobs)
    ? readdirSync(blobs)
        .filter((name) => name.startsWith(`${sha256(weights)}.`))
        .map((name) => join(blobs, name))
    : [];
};

/** Resolves when a part of the weights is on disk. */
async function begun(all: Start): Promise<void> {
  while (!unfinished(all).some((path) => (statSync(path, { throwIfNoEntry: false })?.size ?? 0) > 0)) await sleep(10);
}

t.test('pull, models, models rm', async (t) => {
  const { env, repoFolder, snapshot, hub } = await start(t);
  const pulled = await ndsrun(['pull', tinyRepo], { env });
  t.match(pulled, { code: 0, stdout: `${snapshot}\n` });
  t.match(
    pulled.stderr,
    /^config\.json \[#{20}\] 100 % 801 B of 801 B.*^model\.safetensors \[#{20}\] 100 % 350 kB of 350 kB/ms,
    'a bar per file',
  );
  t.same(await ndsrun(['pull', '--quiet', tinyRepo], { env }), { code: 0, signal: null, stdout: `${snapshot}\n`, stderr: '' });

  const listed = await ndsrun(['models'], { env });
  t.match(
    listed.stdout,
    /^model +size +dtype +family +used\nnds:story-5m .*\nnds:story-180k .*\nnano-test\/tiny +423 kB +bfloat16 +qwen3 +\d{4}-/,
  );
  const json = JSON.parse((await ndsrun(['models', '--json'], { env })).stdout) as unknown[];
  t.match(json[2], { name: tinyRepo, folder: snapshot, bytes: 422679, dtype: 'bfloat16', family: 'qwen3', problem: null });

  hub.repos['other/kind'] = {
    files: { ...tinyFiles(), 'config.json': Buffer.from('{"architectures":["MambaForCausalLM"],"model_type":"mamba"}') },
    commit: 'a'.repeat(40),
  };
  t.equal((await ndsrun(['pull', 'other/kind'], { env })).code, 0);
  t.match((await ndsrun(['models'], { env })).stdout, /^other\/kind +422 kB +unsupported +mamba/m);

  t.match(await ndsrun(['models', 'rm', tinyRepo], { env }), { code: 0, stdout: 'nano-test/tiny removed, 423 kB\n' });
  t.notOk(existsSync(repoFolder));
  t.match(await ndsrun(['models', 'rm', tinyRepo], { env }), { code: 65, stderr: /nano-test\/tiny in .*ERR_MODEL_NOT_FOUND/ });
  t.match(await ndsrun(['models', 'rm', 'nds:story-5m'], { env }), { code: 64, stderr: /ORG\/NAME.*received nds:story-5m/ });
});

t.test('a second process waits for the first', async (t) => {
  const all = await start(t);
  all.hub.faults = { chunkDelayMs: 200 };
  const first = new Running(['pull', tinyRepo], { env: all.env });
  await begun(all);
  const second = new Running(['pull', tinyRepo], { env: all.env });
  for (const { code, stdout } of [await first.ended(), await second.ended()]) t.same([code, stdout], [0, `${all.snapshot}\n`]);
  t.equal(all.hub.sent.bytes, weights.length, 'fetched once');
  t.same(unfinished(all), []);
});

t.test('two processes that begin together', async (t) => {
  const all = await start(t);
  all.hub.faults = { chunkDelayMs: 20 };
  const both = [1, 2].map(() => new Running(['pull', tinyRepo], { env: all.env }));
  for (const running of both) t.match(await running.ended(), { code: 0, stdout: `${all.snapshot}\n` });
  t.ok(readFileSync(join(all.snapshot, 'model.safetensors')).equals(weights));
  t.same(unfinished(all), []);
});

t.test('an interrupted pull leaves what it has, and the next goes on', async (t) => {
  const all = await start(t);
  all.hub.faults = { chunkDelayMs: 200 };
  const running = new Running(['pull', tinyRepo], { env: all.env });
  await begun(all);
  running.child.kill('SIGINT');
  t.match(await running.ended(), { code: null, signal: 'SIGINT', stdout: '' });
  t.match(unfinished(all), [/\.incomplete$/]);
  t.notOk(existsSync(join(all.repoFolder, 'refs')), 'what is not complete has no name');
  all.hub.faults = {};
  t.match(await ndsrun(['pull', tinyRepo], { env: all.env }), { code: 0 });
  t.match(all.hub.requests.at(-1), /^GET \/lfs\/\w+ bytes=[1-9]/);
  t.same(unfinished(all), []);
});

t.test('names where a folder is expected', async (t) => {
  const { env, hub } = await start(t);
  const generate = (...args: string[]) =>
    ndsrun(['generate', '--max-tokens=4', '--seed=1', '--nproc-per-node=2', ...args, 'Once upon'], { env });
  t.match(await generate('--dry-run', tinyRepo), { code: 0 });
  t.same(hub.requests, [], '--dry-run asks no hub');
  const expected = await generate('nds:story-180k', '--quiet');
  t.match(expected, { code: 0, stderr: '' });
  const draft = JSON.stringify({ model: tinyRepo });
  const drafted = await generate('nds:story-180k', '--speculative-config', draft);
  t.match(drafted, { code: 0, stdout: expected.stdout, stderr: /^config\.json \[#/ });
  const numRequests = hub.requests.length;
  t.same(await generate(tinyRepo, '--quiet'), expected);
  t.match((await ndsrun(['bench', 'kv-utilization', '--max-len=64', tinyRepo], { env })).code, 0);
  t.equal(hub.requests.length, numRequests, 'a cached model is asked of no hub');
});

t.test('what is no model, in one line', async (t) => {
  const cases: [model: string, env: Record<string, string>, message: RegExp][] = [
    ['org/none', { HF_ENDPOINT: 'http://127.0.0.1:9' }, /org\/none from the hub.*127\.0\.0\.1:9/],
    ['examples/models/story-5m/model.safetensors', {}, /model\.safetensors: give the folder/],
  ];
  const { env, hub } = await start(t);
  for (const [model, more, message] of cases) {
    const { code, stdout, stderr } = await ndsrun(['generate', model, 'x'], { env: { ...env, ...more } });
    t.same([code, stdout], [65, ''], model);
    t.match(stderr, /^ndsrun: [^\n]* \[ERR_MODEL_NOT_FOUND\]\n$/);
    t.match(stderr, message);
  }
  t.match(await ndsrun(['pull', './here'], { env }), { code: 64, stderr: /Expected ORG\/NAME or ORG\/NAME@REVISION but received/ });
  t.same(hub.requests, []);
});
