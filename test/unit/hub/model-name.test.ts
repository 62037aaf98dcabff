/** What names mean, and which files of a repository a load needs. */
import { join } from 'node:path';
import t from 'tap';
import { repoFolder, repoOfFolder } from '../../../rank/hub/cache.ts';
import { readHubSettings } from '../../../rank/hub/hub-settings.ts';
import { nearShipped, parseModelName } from '../../../rank/hub/model-name.ts';
import { chooseFiles, chooseShards, shardNames } from '../../../rank/hub/needed-files.ts';

const id = { repo: 'org/name', revision: 'main' };
const listed = (...paths: string[]) => paths.map((path) => ({ path, size: 1, etag: 'a'.repeat(40) }));
const chosen = (...paths: string[]) => chooseFiles(listed(...paths), id).files.map(({ path }) => path);

t.test('names', async (t) => {
  t.same(parseModelName('Qwen/Qwen3-0.6B'), { type: 'hub', repo: 'Qwen/Qwen3-0.6B', revision: 'main' });
  t.same(parseModelName('a/b@v1.0'), { type: 'hub', repo: 'a/b', revision: 'v1.0' });
  t.same(parseModelName('a/b@refs/pr/1'), { type: 'hub', repo: 'a/b', revision: 'refs/pr/1' });
  t.same(parseModelName('nds:story-5m'), { type: 'shipped', name: 'story-5m' });
  const paths = [
    './a',
    '/a/b',
    '~/a',
    'a',
    'a/b/c',
    '../a',
    'a/..',
    'a/b--c',
    'a/b.git',
    'a/b@',
    'a/b@x@y',
    'a/b@../x',
    'a/b@/x',
    'a/b c',
    'a\\b',
    '',
  ];
  for (const path of paths) t.same(parseModelName(path), { type: 'path' }, path);
});

t.test('the shipped model that was meant', async (t) => {
  for (const name of ['story-5m', 'Story_5M', 'nds:story5m', 'examples/models/story-5m/', 'karpathy/story-5m', '5m'])
    t.equal(nearShipped(name), 'nds:story-5m', name);
  for (const name of ['llama', 'story', 'story-50m', '']) t.equal(nearShipped(name), null, name);
});

t.test('settings as in Python', async (t) => {
  const home = '/home/me';
  const cacheOf = (env: Record<string, string>) => readHubSettings(env, home).cacheDir;
  t.equal(cacheOf({}), '/home/me/.cache/huggingface/hub');
  t.equal(cacheOf({ XDG_CACHE_HOME: '/x' }), '/x/huggingface/hub');
  t.equal(cacheOf({ XDG_CACHE_HOME: '/x', HF_HOME: '~/hf' }), '/home/me/hf/hub');
  t.equal(cacheOf({ HF_HOME: '/hf', HUGGINGFACE_HUB_CACHE: '/old' }), '/old');
  t.equal(cacheOf({ HF_HOME: '/hf', HUGGINGFACE_HUB_CACHE: '/old', HF_HUB_CACHE: '$BASE/${SUB}/hub', BASE: '/b', SUB: 's' }), '/b/s/hub');
  t.match(readHubSettings({}, home), { endpoint: 'https://huggingface.co', token: null, isOffline: false, usesSymlinks: true });
  t.equal(readHubSettings({}, home).tokenFile, join(home, '.cache/huggingface/token'));
  t.equal(readHubSettings({ HF_TOKEN_PATH: '/t' }, home).tokenFile, '/t');
  t.equal(readHubSettings({ HF_TOKEN: ' hf_x\n' }, home).token, 'hf_x');
  t.match(readHubSettings({ HF_TOKEN: 'hf_x', HF_HUB_DISABLE_IMPLICIT_TOKEN: '1' }, home), { token: null, tokenFile: null });
  for (const value of ['1', 'on', 'YES', 'True']) t.equal(readHubSettings({ HF_HUB_OFFLINE: value }, home).isOffline, true, value);
  for (const value of ['0', '', 'no']) t.equal(readHubSettings({ HF_HUB_OFFLINE: value }, home).isOffline, false, value);
  t.equal(readHubSettings({ HF_ENDPOINT: 'http://127.0.0.1:1/' }, home).endpoint, 'http://127.0.0.1:1');
  t.throws(() => readHubSettings({ HF_ENDPOINT: 'mirror' }, home), { code: 'ERR_USAGE', message: /HF_ENDPOINT.*mirror/ });
});

t.test('folders of the cache', async (t) => {
  t.equal(repoFolder('/c', 'org/a-name'), '/c/models--org--a-name');
  t.equal(repoOfFolder('models--org--a-name'), 'org/a-name');
  for (const other of ['datasets--org--name', '.locks', 'models--']) t.equal(repoOfFolder(other), null, other);
});

t.test('only what a load reads', async (t) => {
  const small = ['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'];
  const templates = ['added_tokens.json', 'vocab.json', 'merges.txt', 'chat_template.jinja', 'additional_chat_templates/tools.jinja'];
  const unread = [
    'README.md',
    'original/consolidated.00.pth',
    'original/model.safetensors',
    'consolidated.safetensors',
    'pytorch_model.bin',
  ];
  const others = ['model.gguf', 'onnx/model.onnx', 'onnx/config.json', 'model-00001-of-00002.safetensors', 'model.safetensors.index.json'];
  t.same(chosen(...small, ...templates, ...unread, ...others, 'model.safetensors'), [...small, ...templates, 'model.safetensors']);
  t.same(chosen('config.json', 'model.safetensors.index.json', 'a.safetensors'), ['config.json', 'model.safetensors.index.json']);
});

t.test('what has no safetensors is refused by name', async (t) => {
  const refusal = (...paths: string[]) => t.throws(() => chosen(...paths), { code: 'ERR_UNSUPPORTED' });
  t.match(refusal('config.json', 'a.gguf', 'b.gguf', 'c.gguf', 'd.gguf'), {
    message: /org\/name.*a\.gguf, b\.gguf, c\.gguf, ….*made from/,
  });
  t.match(refusal('config.json', 'pytorch_model.bin'), { message: /pytorch_model\.bin.*org\/name@refs\/pr\/1/ });
  t.match(refusal('README.md'), { message: /no weights/ });
  t.match(refusal('model.safetensors'), { message: /config\.json in org\/name/ });
});

t.test('shards', async (t) => {
  const index = (weight_map: unknown) => JSON.stringify({ weight_map });
  t.same(shardNames(index({ a: 'y.safetensors', b: 'x.safetensors', c: 'y.safetensors' }), 'i'), ['x.safetensors', 'y.safetensors']);
  for (const bad of ['', '{}', 'null', index({}), index({ a: '../x.safetensors' }), index({ a: 'x.bin' }), index({ a: 1 })])
    t.throws(() => shardNames(bad, 'the index'), { code: 'ERR_CHECKPOINT', message: /the index/ }, bad);
  t.same(chooseShards(index({ a: 'x.safetensors' }), listed('x.safetensors', 'z.safetensors'), id), listed('x.safetensors'));
  const missing = () => chooseShards(index({ a: 'x.safetensors' }), listed('z.safetensors'), id);
  t.throws(missing, { code: 'ERR_CHECKPOINT', message: /Expected x\.safetensors in org\/name/ });
  // A hash names a file in the cache.
  const hostile = [{ path: 'config.json', size: 1, etag: '../../x' }, ...listed('model.safetensors')];
  t.throws(() => chooseFiles(hostile, id), { code: 'ERR_CHECKPOINT', message: /hash for config\.json/ });
});
