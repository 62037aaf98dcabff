/** Packed shards kept between loads: the same bits, and a file that is not whole or not of this model is never used. */
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { basename, join, resolve } from 'node:path';
import t, { type Test } from 'tap';
import { LLM, type LLMOptions } from '../../rank/index.ts';
import { temporaryName } from '../../rank/shard-cache/eviction.ts';
import { savesEnded } from '../../rank/shard-cache/shard-file.ts';
import { goldenPath } from '../helpers/goldens.ts';
import { ndsrun } from '../helpers/launcher.ts';

const shipped = resolve('examples/models/story-180k');
const small: LLMOptions = { maxModelLen: 64, maxNumSeqs: 2, maxNumBatchedTokens: 32, device: 'cpu', numThreads: 2 };

/** A cache of its own, for the rest of the test, and what is written to standard error meanwhile. */
function openCache(t: Test, mode = 'on'): { readonly root: string; readonly shards: string; readonly notices: string[] } {
  const root = join(t.testdir(), 'cache');
  const changed = { NDS_CACHE_DIR: root, NDS_SHARD_CACHE: mode };
  const before = { ...process.env };
  Object.assign(process.env, changed);
  const notices: string[] = [];
  const { write } = process.stderr;
  process.stderr.write = (text: string | Uint8Array) => notices.push(String(text)) > 0;
  t.teardown(() => {
    process.stderr.write = write;
    for (const key of Object.keys(changed)) {
      if (before[key] === undefined) delete process.env[key];
      else process.env[key] = before[key];
    }
  });
  return { root, shards: join(root, 'shards'), notices };
}

/** Bits of the logits of a few tokens. */
async function logitsOf(options: LLMOptions, model = shipped): Promise<string> {
  const llm = await LLM.load(model, { ...small, ...options });
  try {
    const { data } = await llm.computeLogits([1, 5, 9, 13]);
    return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64');
  } finally {
    await llm.close();
  }
}

const entriesIn = (folder: string) => readdirSync(folder).map((name) => join(folder, name));
/** The packed matrices in a file. */
const dataOf = (path: string) => readFileSync(path).subarray(Number(readFileSync(path).readBigInt64LE(48)));
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

t.test('a shard that was read has the bits of one that was packed', async (t) => {
  for (const quantization of ['none', 'int8', 'int4'] as const) {
    const { shards, notices } = openCache(t);
    const draft = { method: 'draft_model', model: shipped, numSpeculativeTokens: 2 } as const;
    for (const speculativeConfig of [undefined, draft]) {
      const options = { quantization, speculativeConfig };
      process.env['NDS_SHARD_CACHE'] = 'off';
      const expected = await logitsOf(options);
      process.env['NDS_SHARD_CACHE'] = 'on';
      t.equal(await logitsOf(options), expected, `${quantization}, written`);
      const [entry = ''] = entriesIn(shards);
      utimesSync(entry, 1000, 1000);
      t.equal(await logitsOf(options), expected, `${quantization}, read`);
      t.ok(statSync(entry).mtimeMs > 1e6, 'its use is noted');
    }
    t.same(notices, []);
  }
});

t.test('integers that a checkpoint stores are kept as well', async (t) => {
  const { shards, notices } = openCache(t);
  for (const name of ['qwen2-awq', 'llama-gptq-act-order', 'llama-int8-compressed', 'llama-gptq-int8-act-order']) {
    const bits = (quantization: 'none' | 'expand') => logitsOf({ quantization }, goldenPath(name));
    process.env['NDS_SHARD_CACHE'] = 'off';
    const [kept, expanded] = [await bits('none'), await bits('expand')];
    process.env['NDS_SHARD_CACHE'] = 'on';
    t.not(kept, expanded, name);
    for (const way of ['written', 'read']) t.same([await bits('none'), await bits('expand')], [kept, expanded], `${name}, ${way}`);
  }
  t.equal(entriesIn(shards).length, 8);
  t.same(notices, []);
});

t.test('what is packed is what its version says', async (t) => {
  // The layout of packed matrices and their rounding. Where these change, so must `kPackedLayout` in packed_linear.h.
  const expected = {
    none: 'bc7cd1d1613b907ab508746e2af0a1c89a3b632f71ef274cd115077ed6a82c18',
    int8: 'b170ff99b0e125efc9f370dd6c651e57c47cedc45f4c795ba14eefeebbc41219',
    int4: '5795fa964197c48ec09d432578eb8e1ceb02cbcb363e11296a68b0067ce7f316',
  };
  const { shards } = openCache(t);
  for (const quantization of ['none', 'int8', 'int4'] as const) {
    const before = existsSync(shards) ? entriesIn(shards) : [];
    await logitsOf({ quantization });
    const [added = ''] = entriesIn(shards).filter((path) => !before.includes(path));
    t.equal(sha256(dataOf(added)), expected[quantization], quantization);
  }
});

t.test('one file serves every instruction set', async (t) => {
  const { root, shards } = openCache(t);
  const run = (isa: string, cache: string) =>
    ndsrun(
      ['generate', shipped, 'Once', '--max-tokens', '8', '--temperature', '0', '--quantization', 'int4', '--dtype', 'float32', '--quiet'],
      {
        env: { NDS_ISA: isa, NDS_CACHE_DIR: cache, NDS_SHARD_CACHE: 'on' },
      },
    );
  const portable = await run('portable', join(root, 'other'));
  t.equal(portable.code, 0, portable.stderr);
  await logitsOf({ quantization: 'int4' });
  const [here = ''] = entriesIn(shards);
  const [there = ''] = entriesIn(join(root, 'other', 'shards'));
  t.equal(here.split('/').at(-1), there.split('/').at(-1), 'one key');
  t.ok(dataOf(here).equals(dataOf(there)));
  t.match(await run('portable', root), { code: 0, stdout: portable.stdout });
});

t.test('a file that is not whole is told, and made again', async (t) => {
  const { shards, notices } = openCache(t);
  const expected = await logitsOf({ quantization: 'int4' });
  const [entry = ''] = entriesIn(shards);
  const whole = readFileSync(entry);
  const flip = (at: number) => {
    const bytes = Buffer.from(whole);
    bytes[at] = (bytes[at] as number) ^ 4;
    writeFileSync(entry, bytes);
  };
  const damages: readonly (readonly [string, () => void])[] = [
    ['a bit of the data', () => flip(whole.length - 1000)],
    ['the last byte', () => flip(whole.length - 1)],
    ['the key', () => flip(20)],
    ['the layout', () => flip(8)],
    ['the label', () => flip(80)],
    ['a checksum', () => flip(200)],
    ['the size of the label', () => flip(15)],
    ['half of it', () => truncateSync(entry, whole.length / 2)],
    ['no data', () => truncateSync(entry, 4096)],
    ['nothing', () => truncateSync(entry, 0)],
    ['more than it', () => writeFileSync(entry, Buffer.concat([whole, Buffer.alloc(1)]))],
  ];
  for (const [what, damage] of damages) {
    damage();
    // Notices are told once in a process.
    const numTold = notices.length;
    t.equal(await logitsOf({ quantization: 'int4' }), expected, what);
    t.ok(readFileSync(entry).equals(whole), `${what}: made again`);
    if (numTold === 0) t.match(notices[0], /shard cache: Expected packed weights in .*\.shard, which are made again, but its bytes differ/);
  }
  t.match(notices.at(-1), /but it is truncated, damaged or of another load/);
});

t.test('a writer that was killed leaves nothing that is used', async (t) => {
  const { shards, notices } = openCache(t);
  const expected = await logitsOf({ quantization: 'int8' });
  const [entry = ''] = entriesIn(shards);
  // No process has such an id.
  const left = join(shards, temporaryName(basename(entry), { host: hostname(), pid: 999_999_999 }, 'ab'));
  writeFileSync(left, readFileSync(entry).subarray(0, 5000));
  t.equal(await logitsOf({ quantization: 'int8' }), expected);
  t.same(entriesIn(shards), [entry], 'its file is gone');
  t.same(notices, []);
});

t.test('two writers at once', async (t) => {
  const { shards, notices } = openCache(t);
  const both = await Promise.all([logitsOf({ quantization: 'int4' }), logitsOf({ quantization: 'int4' })]);
  t.equal(both[0], both[1]);
  t.equal(entriesIn(shards).length, 1);
  t.equal(await logitsOf({ quantization: 'int4' }), both[0]);
  t.same(notices, []);
});

t.test('a model that changed is packed again', async (t) => {
  const { root, shards } = openCache(t);
  const model = join(root, 'model');
  mkdirSync(root);
  cpSync(shipped, model, { recursive: true });
  const weights = join(model, 'model.safetensors');
  utimesSync(weights, 1e9, 1e9);
  const first = await logitsOf({ quantization: 'int8' }, model);
  const bytes = readFileSync(weights);
  const { size } = statSync(weights);
  bytes[size - 1] = (bytes[size - 1] as number) ^ 1;
  writeFileSync(weights, bytes);
  utimesSync(weights, 1e9, 1e9);
  t.match(statSync(weights), { size, mtimeMs: 1e12 }, 'with the same size and time');
  process.env['NDS_SHARD_CACHE'] = 'off';
  const expected = await logitsOf({ quantization: 'int8' }, model);
  process.env['NDS_SHARD_CACHE'] = 'on';
  t.not(expected, first);
  t.equal(await logitsOf({ quantization: 'int8' }, model), expected);
  t.equal(entriesIn(shards).length, 2);
});

t.test('a cache that cannot be written', async (t) => {
  const { root, shards, notices } = openCache(t);
  const expected = await logitsOf({ quantization: 'int4' });
  const [entry = ''] = entriesIn(shards);
  writeFileSync(`${root}-file`, '');
  process.env['NDS_CACHE_DIR'] = `${root}-file`;
  t.equal(await logitsOf({ quantization: 'int4' }), expected);
  t.match(notices, [/shard cache: shards are not kept: .*ENOTDIR|EEXIST/]);
  process.env['NDS_CACHE_DIR'] = root;
  // Not for the superuser, who may write anywhere.
  chmodSync(shards, 0o500);
  t.equal(await logitsOf({ quantization: 'int4' }), expected, 'read from a folder of another user');
  chmodSync(shards, 0o700);
  process.env['NDS_SHARD_CACHE_SIZE'] = '1kB';
  t.teardown(() => delete process.env['NDS_SHARD_CACHE_SIZE']);
  t.equal(await logitsOf({ quantization: 'int8' }), await logitsOf({ quantization: 'int8' }));
  t.match(notices[1], /NDS_SHARD_CACHE_SIZE is 1000 bytes, fewer than the \d+ of this load/);
  t.same(entriesIn(shards), [entry]);
});

t.test('small shards, and those in the types of the checkpoint, are kept where asked only', async (t) => {
  const { shards } = openCache(t, '');
  await logitsOf({ quantization: 'int4' });
  t.notOk(existsSync(shards));
  process.env['NDS_SHARD_CACHE'] = 'yes';
  await t.rejects(logitsOf({}), { code: 'ERR_USAGE', message: /NDS_SHARD_CACHE/ });
  process.env['NDS_SHARD_CACHE'] = 'off';
  await logitsOf({ quantization: 'int4' });
  t.notOk(existsSync(shards));
  await savesEnded();
});

t.test('ranks keep a file each, which ndsrun cache lists and removes', async (t) => {
  const { root, shards } = openCache(t);
  const env = { NDS_CACHE_DIR: root, NDS_SHARD_CACHE: 'on' };
  const options = ['--max-tokens', '8', '--temperature', '0', '--quantization', 'int4', '--quiet'];
  const run = () => ndsrun(['generate', shipped, 'Once', ...options, '--nproc-per-node', '2'], { env });
  const written = await run();
  t.equal(written.code, 0, written.stderr);
  t.equal(entriesIn(shards).length, 2);
  for (const path of entriesIn(shards)) utimesSync(path, 1000, 1000);
  t.match(await run(), { code: 0, stdout: written.stdout });
  for (const path of entriesIn(shards)) t.ok(statSync(path).mtimeMs > 1e6, 'read');
  const [first = '', second = ''] = entriesIn(shards);
  copyFileSync(first, second);
  const odd = await run();
  t.match(odd, { code: 0, stdout: written.stdout });
  t.match(odd.stderr, /which are made again, but it is truncated, damaged or of another load/, "another rank's file");
  const { bytes, shards: listed } = JSON.parse((await ndsrun(['cache', '--json'], { env })).stdout);
  t.match(listed.map(({ rank }: { rank: number }) => rank).sort(), [0, 1]);
  t.match(listed[0], { model: shipped, world_size: 2, formats: 'int4, int8' });
  t.match((await ndsrun(['cache'], { env })).stdout, /story-180k {2}rank [01] of 2 {2}int4, int8\n.* of at most 32\.0 GB in /);
  t.match(await ndsrun(['cache', '--clear', '--json'], { env }), { code: 0, stdout: new RegExp(`"removed_bytes": ?${bytes}\\b`) });
  t.same(entriesIn(shards), []);
  t.match(await ndsrun(['cache', 'rm'], { env }), { code: 64, stderr: /Expected no operand but received rm/ });
});
