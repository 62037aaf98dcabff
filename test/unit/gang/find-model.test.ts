/** The model of a load on another node: found by its name, and compared. */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import t, { type Test } from 'tap';
import { findModel, modelSources } from '../../../rank/gang/find-model.ts';
import { resolveModel } from '../../../rank/hub/resolve-model.ts';
import { modelHash } from '../../../rank/model/index.ts';
import { startHub, tinyRepo } from '../../helpers/hub.ts';

const shipped = resolve('examples/models/story-180k');
const here = { groupRank: 0, groupWorldSize: 2 };
const there = { groupRank: 1 };
const unheard = () => {};

/** Runs `work` as a process would in another folder and environment: those of another node. */
async function elsewhere<T>(cwd: string, env: Record<string, string>, work: () => Promise<T>): Promise<T> {
  const before = { cwd: process.cwd(), env: { ...process.env } };
  process.chdir(cwd);
  Object.assign(process.env, env);
  try {
    return await work();
  } finally {
    process.chdir(before.cwd);
    process.env = before.env;
  }
}

async function sourceOf(name: string, path: string) {
  const [source] = await modelSources(here, [{ name, path }]);
  if (source === undefined) throw new Error('no source');
  return source;
}

/** `nodes[i]` has the shipped model in `folder`, but for `change`. */
function makeNodes(t: Test, folder: string, change: (copy: string, node: number) => void = () => {}): string[] {
  const root = t.testdir();
  return [0, 1].map((node) => {
    const path = join(root, String(node), folder);
    mkdirSync(path, { recursive: true });
    cpSync(shipped, path, { recursive: true });
    change(path, node);
    return join(root, String(node));
  });
}

t.test('one node has nothing to find', async (t) => {
  const models = [{ name: 'nds:story-180k', path: shipped }];
  t.same(await modelSources(null, models), []);
  t.same(await modelSources({ groupWorldSize: 1 }, models), []);
  t.match(await modelSources(here, models), [{ path: shipped, name: 'nds:story-180k', hash: await modelHash(shipped) }]);
});

t.test("a relative path is one of each node's own", async (t) => {
  for (const name of ['./models/tiny', 'models/tiny', 'tiny']) {
    const folder = name.replace('./', '');
    const [first, second] = makeNodes(t, folder) as [string, string];
    const source = await elsewhere(first, {}, async () => sourceOf(name, resolve(name)));
    t.equal(source.path, join(first, folder));
    t.equal(await elsewhere(second, {}, () => findModel(source, there, unheard)), join(second, folder));
  }
});

t.test('what is not there is named with its node, and is not taken for a repository', async (t) => {
  const [first] = makeNodes(t, 'models/tiny') as [string];
  const source = await elsewhere(first, {}, async () => sourceOf('models/tiny', resolve('models/tiny')));
  const empty = t.testdir();
  const offline = { HF_HUB_OFFLINE: '1' };
  await t.rejects(
    elsewhere(empty, offline, () => findModel(source, there, unheard)),
    {
      code: 'ERR_MODEL_NOT_FOUND',
      message: new RegExp(`on node 1 \\(.*\\) too, looked for as ${join(empty, 'models/tiny')}: .*where nothing is`),
    },
  );
  const incomplete = t.testdir({ models: { tiny: {} } });
  await t.rejects(
    elsewhere(incomplete, offline, () => findModel(source, there, unheard)),
    { message: /on node 1 .*config\.json/ },
  );
});

t.test('another model is refused, with both hashes', async (t) => {
  const changes: ((copy: string) => void)[] = [
    (copy) => writeFileSync(join(copy, 'config.json'), `${readFileSync(join(copy, 'config.json'), 'utf8')} `),
    (copy) => {
      const bytes = readFileSync(join(copy, 'model.safetensors'));
      const firstTensor = 8 + Number(bytes.readBigUInt64LE(0));
      bytes.writeUInt8((bytes[firstTensor] as number) ^ 1, firstTensor);
      writeFileSync(join(copy, 'model.safetensors'), bytes);
    },
  ];
  for (const change of changes) {
    const [first, second] = makeNodes(t, 'tiny', (copy, node) => node === 1 && change(copy)) as [string, string];
    const source = await elsewhere(first, {}, async () => sourceOf('./tiny', resolve('./tiny')));
    const other = await modelHash(join(second, 'tiny'));
    t.not(other, source.hash);
    await t.rejects(
      elsewhere(second, {}, () => findModel(source, there, unheard)),
      {
        code: 'ERR_MISMATCH',
        message: new RegExp(`on node 1 .*${source.hash} of ${source.path}, but received ${other} of ${join(second, 'tiny')}`),
      },
    );
  }
});

t.test('a repository is found at the commit of rank 0, which each node downloads for itself', async (t) => {
  const hub = await startHub(t);
  const root = t.testdir();
  const nodes = [0, 1].map((node) => ({ HF_ENDPOINT: hub.url, HF_HOME: join(root, String(node)) }));
  const cwd = process.cwd();
  const source = await elsewhere(cwd, nodes[0] as (typeof nodes)[0], async () => sourceOf(tinyRepo, await resolveModel(tinyRepo)));
  const commit = hub.repos[tinyRepo]?.commit ?? '';
  t.equal(source.name, `${tinyRepo}@${commit}`);
  const bytes: number[] = [];
  // Two ranks of the node at once.
  const find = () => findModel(source, there, (doneBytes) => bytes.push(doneBytes));
  const sent = hub.sent.bytes;
  const folders = await elsewhere(cwd, nodes[1] as (typeof nodes)[1], () => Promise.all([find(), find()]));
  t.same(new Set(folders).size, 1);
  t.ok(folders[0]?.startsWith(join(root, '1')), 'in the cache of its node');
  t.equal(await modelHash(folders[0] as string), source.hash);
  t.ok(bytes.length > 0);
  t.equal(hub.sent.bytes - sent, sent, 'downloaded once');
});
