/** Downloads from a small hub on loopback: cut connections, damaged content, refusals, and what the cache holds then. */
import { lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { cachedSnapshot } from '../../../rank/hub/cache.ts';
import { type HubSettings, readHubSettings } from '../../../rank/hub/hub-settings.ts';
import { pullModel } from '../../../rank/hub/pull.ts';
import { readModel } from '../../../rank/model/index.ts';
import { gitHash, type Hub, sha256, shardedFiles, startHub, tinyFiles, tinyRepo } from '../../helpers/hub.ts';

const id = { repo: tinyRepo, revision: 'main' };
const weights = tinyFiles()['model.safetensors'] as Buffer;
const wanted = ['config.json', 'generation_config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'];

interface Start {
  readonly hub: Hub;
  readonly settings: HubSettings;
  readonly repoFolder: string;
}

async function start(t: Test, env: Record<string, string> = {}): Promise<Start> {
  const hub = await startHub(t);
  const settings = readHubSettings({ HF_ENDPOINT: hub.url, HF_HOME: t.testdir(), ...env });
  return { hub, settings, repoFolder: join(settings.cacheDir, 'models--nano-test--tiny') };
}

const blobs = ({ repoFolder }: Start) => readdirSync(join(repoFolder, 'blobs'));
/** Writes what a process that has ended left of the weights. */
function leaveUnfinished(
  { repoFolder }: Start,
  content: Buffer,
  owner = `${hostname().replace(/[^\w-]/g, '_')}.999999999.0a1b2c3d`,
): string {
  const path = join(repoFolder, 'blobs', `${sha256(weights)}.${owner}.incomplete`);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  return path;
}

t.test('a model in the layout of Python', async (t) => {
  const all = await start(t);
  const { hub, settings, repoFolder } = all;
  const progress: unknown[] = [];
  t.equal(cachedSnapshot(settings.cacheDir, id), null);
  const folder = await pullModel(id, settings, (event) => progress.push(event));
  const commit = hub.repos[tinyRepo]?.commit ?? '';
  t.equal(folder, join(repoFolder, 'snapshots', commit));
  t.same(readdirSync(folder).sort(), wanted);
  for (const name of wanted) {
    const bytes = tinyFiles()[name] as Buffer;
    const hash = name === 'model.safetensors' ? sha256(bytes) : gitHash(bytes);
    t.equal(readlinkSync(join(folder, name)), `../../blobs/${hash}`, name);
    t.ok(readFileSync(join(folder, name)).equals(bytes), name);
  }
  t.same(blobs(all).sort(), wanted.map((name) => readlinkSync(join(folder, name)).slice(12)).sort(), 'no other blob');
  t.equal(readFileSync(join(repoFolder, 'refs', 'main'), 'utf8'), commit);
  t.equal(cachedSnapshot(settings.cacheDir, id), folder);
  t.ok(readModel(folder).weightBytes > 0);
  t.same(progress.at(-1), { phase: 'download', doneBytes: weights.length, totalBytes: weights.length, file: 'model.safetensors' });
  hub.requests.length = 0;
  t.equal(await pullModel(id, settings), folder);
  t.equal(hub.requests.length, 2, 'the second time asks for the commit and its files alone');
});

t.test('shards that the index names', async (t) => {
  const { hub, settings } = await start(t);
  const files = { ...shardedFiles(), 'model-00001-of-00009.safetensors': Buffer.from('of another index') };
  hub.repos[tinyRepo] = { files, commit: 'd'.repeat(40) };
  const folder = await pullModel(id, settings);
  t.same(
    readdirSync(folder).filter((name) => name.includes('00001')),
    ['model-00001-of-00002.safetensors'],
  );
  t.ok(readModel(folder).weightBytes > 0);
  delete (files as Record<string, Buffer>)['model-00002-of-00002.safetensors'];
  hub.repos[tinyRepo] = { files, commit: 'e'.repeat(40) };
  await t.rejects(pullModel(id, settings), { code: 'ERR_CHECKPOINT', message: /model-00002-of-00002\.safetensors/ });
  t.equal(cachedSnapshot(settings.cacheDir, id), folder, 'the revision before stays');
});

t.test('a cut connection goes on where it ended', async (t) => {
  const { hub, settings } = await start(t);
  hub.faults = { cutAfter: { bytes: 90_000, times: 3 } };
  await pullModel(id, settings);
  t.equal(hub.sent.bytes, weights.length);
  const ranges = hub.requests.filter((line) => line.includes('/lfs/')).map((line) => /bytes=\d+/.exec(line)?.[0]);
  t.same(ranges, [undefined, 'bytes=90000', 'bytes=180000', 'bytes=270000']);
});

t.test('a hub that is busy is asked again', async (t) => {
  const { hub, settings } = await start(t);
  hub.faults = { status: { code: 503, times: 2 } };
  await pullModel(id, settings);
  t.equal(hub.sent.bytes, weights.length);
});

t.test('a connection that is lost for good leaves what it brought', async (t) => {
  const all = await start(t);
  all.hub.faults = { cutAfter: { bytes: 0, times: 99 } };
  leaveUnfinished(all, weights.subarray(0, 1000));
  await t.rejects(pullModel(id, all.settings), {
    code: 'ERR_SYSTEM',
    message: /model\.safetensors.*byte 1000 of 350024.*goes on from there/,
  });
  all.hub.faults = {};
  await pullModel(id, all.settings);
  t.equal(all.hub.sent.bytes, weights.length - 1000);
  t.notOk(blobs(all).some((name) => name.endsWith('.incomplete')));
});

t.test('what a process left is taken over', async (t) => {
  const whole = await start(t);
  leaveUnfinished(whole, weights);
  await pullModel(id, whole.settings);
  t.equal(whole.hub.sent.bytes, 0, 'complete but for its name');

  const damaged = await start(t);
  leaveUnfinished(damaged, Buffer.alloc(200_000));
  const folder = await pullModel(id, damaged.settings);
  t.ok(readFileSync(join(folder, 'model.safetensors')).equals(weights), 'a damaged one is fetched again');

  const long = await start(t);
  leaveUnfinished(long, Buffer.alloc(400_000));
  t.ok(readFileSync(join(await pullModel(id, long.settings), 'model.safetensors')).equals(weights), 'so is one that is too long');
});

t.test('a hub without ranges sends all again', async (t) => {
  const all = await start(t);
  all.hub.faults = { ignoresRange: true };
  leaveUnfinished(all, weights.subarray(0, 1000));
  t.ok(readFileSync(join(await pullModel(id, all.settings), 'model.safetensors')).equals(weights));
});

t.test('damaged content is refused and not kept', async (t) => {
  const all = await start(t);
  all.hub.faults = { corrupt: true };
  const expected = { code: 'ERR_CHECKPOINT', message: new RegExp(`hash ${sha256(weights)} for model\\.safetensors`) };
  await t.rejects(pullModel(id, all.settings), expected);
  t.equal(cachedSnapshot(all.settings.cacheDir, id), null);
  t.notOk(blobs(all).some((name) => name.startsWith(sha256(weights))));
  all.hub.faults = {};
  t.ok(await pullModel(id, all.settings));
});

t.test('a new commit fetches what changed', async (t) => {
  const { hub, settings } = await start(t);
  const old = await pullModel(id, settings);
  const files = { ...tinyFiles(), 'generation_config.json': Buffer.from('{"temperature":0.5}') };
  hub.repos[tinyRepo] = { files, commit: 'f'.repeat(40), revisions: ['v2', 'refs/pr/1'] };
  hub.sent.bytes = 0;
  const fresh = await pullModel(id, settings);
  t.not(fresh, old);
  t.equal(hub.sent.bytes, 0, 'the weights are the same blob');
  for (const revision of ['v2', 'refs/pr/1', 'f'.repeat(40)]) {
    const named = { ...id, revision };
    t.equal(await pullModel(named, settings), fresh, revision);
    t.equal(cachedSnapshot(settings.cacheDir, named), fresh, revision);
  }
});

t.test('copies where links are not possible', async (t) => {
  const { settings } = await start(t, { HF_HUB_DISABLE_SYMLINKS: '1' });
  const folder = await pullModel(id, settings);
  for (const name of wanted) t.ok(lstatSync(join(folder, name)).isFile(), name);
  t.equal(cachedSnapshot(settings.cacheDir, id), folder);
  t.equal(await pullModel(id, settings), folder);
});

t.test('a link whose blob is gone is mended', async (t) => {
  const { settings } = await start(t);
  const folder = await pullModel(id, settings);
  rmSync(join(folder, 'config.json'));
  symlinkSync('../../blobs/gone', join(folder, 'config.json'));
  t.equal(cachedSnapshot(settings.cacheDir, id), null);
  await pullModel(id, settings);
  t.equal(cachedSnapshot(settings.cacheDir, id), folder);
});

t.test('refusals, each in one line', async (t) => {
  const { hub, settings } = await start(t);
  const expect = async (named: { repo?: string; revision?: string }, env: Partial<HubSettings>, message: RegExp) => {
    const error = await pullModel({ ...id, ...named }, { ...settings, ...env }).catch((error: unknown) => error);
    t.match(error, { code: 'ERR_MODEL_NOT_FOUND', message });
    t.notMatch((error as Error).message, /\n/);
  };
  await expect({ repo: 'no/such' }, {}, /repository no\/such on http.*404/);
  await expect({ revision: 'nope' }, {}, /revision nope in nano-test\/tiny/);
  await expect({}, { isOffline: true }, /HF_HUB_OFFLINE.*\.\/tiny.*ndsrun pull nano-test\/tiny/);
  await expect({}, { endpoint: 'http://127.0.0.1:9' }, /none from http:\/\/127\.0\.0\.1:9 .*\.\/tiny/);
  Object.assign(hub.repos[tinyRepo] ?? {}, { token: 'hf_right' });
  await expect({}, {}, /401, and no token was sent.*HF_TOKEN.*licence at http.*\/nano-test\/tiny/);
  await expect({}, { token: 'hf_wrong' }, /403, and the token that was sent.*licence/);
  t.ok(await pullModel(id, { ...settings, token: 'hf_right' }));
  await expect({}, { endpoint: 'http://127.0.0.1:9' }, /cache has what was downloaded before, in .*snapshots/);
});

t.test('the token is that of the file, and goes to the hub alone', async (t) => {
  const { hub, settings } = await start(t);
  Object.assign(hub.repos[tinyRepo] ?? {}, { token: 'hf_filed' });
  writeFileSync(settings.tokenFile ?? '', 'hf_filed\n');
  t.ok(await pullModel(id, settings));
  t.same(hub.leaked, []);
});

t.test('space is asked for before a byte is fetched', async (t) => {
  const { hub, settings } = await start(t);
  hub.faults = { claimedBytes: 2 ** 60 };
  await t.rejects(pullModel(id, settings), { code: 'ERR_SYSTEM', message: /Expected 1073741824\.0 GiB for nano-test\/tiny.*GiB are free/ });
  t.notOk(hub.requests.some((line) => line.includes('/resolve/')));
});

t.test('a repository without safetensors', async (t) => {
  const { hub, settings } = await start(t);
  hub.repos['some/gguf'] = { files: { 'config.json': Buffer.from('{}'), 'q4.gguf': Buffer.from('x') }, commit: 'a'.repeat(40) };
  await t.rejects(pullModel({ repo: 'some/gguf', revision: 'main' }, settings), {
    code: 'ERR_UNSUPPORTED',
    message: /q4\.gguf.*made from/,
  });
});

t.test('a cache that cannot be written', async (t) => {
  const { settings } = await start(t);
  const cacheDir = join(t.testdir({ file: '' }), 'file', 'hub');
  await t.rejects(pullModel(id, { ...settings, cacheDir }), { code: 'ERR_SYSTEM', message: /cache .*HF_HUB_CACHE.*ENOTDIR/ });
});
