/** The cache of packed shards without native code: settings, keys, heads of files, eviction, and its folder. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { TensorSlice, WeightSpec } from '../../../rank/program-spec.ts';
import { formatLabel, headerBytes, parseLabel } from '../../../rank/shard-cache/entry-header.ts';
import { type CacheFile, chooseEvicted, isAbandoned, temporaryName, writerOf } from '../../../rank/shard-cache/eviction.ts';
import { readShardCacheSettings } from '../../../rank/shard-cache/settings.ts';
import { formatsOf, hasQuantized, shardKey } from '../../../rank/shard-cache/shard-key.ts';
import { clearShards, keepFile, listShards, makeRoom, touch } from '../../../rank/shard-cache/store.ts';

const name = (digit: string) => `${digit.repeat(64)}.shard`;

t.test('settings', async (t) => {
  t.same(readShardCacheSettings({}), { mode: 'auto', maxBytes: 32e9 });
  t.same(readShardCacheSettings({ NDS_SHARD_CACHE: '', NDS_SHARD_CACHE_SIZE: '' }), { mode: 'auto', maxBytes: 32e9 });
  for (const [text, maxBytes] of [
    ['0', 0],
    ['1500', 1500],
    ['1.5GB', 1.5e9],
    ['2 tb', 2e12],
    ['7kB', 7000],
  ] as const)
    t.same(readShardCacheSettings({ NDS_SHARD_CACHE: 'on', NDS_SHARD_CACHE_SIZE: text }), { mode: 'on', maxBytes });
  t.throws(() => readShardCacheSettings({ NDS_SHARD_CACHE: '1' }), { code: 'ERR_USAGE', message: /auto, on or off .* received "1"/ });
  for (const text of ['-1', '1GiB', 'many', '1e9'])
    t.throws(() => readShardCacheSettings({ NDS_SHARD_CACHE_SIZE: text }), {
      code: 'ERR_USAGE',
      message: new RegExp(`received "${text}"`),
    });
});

t.test('a key says all that decides the bytes, and nothing else', async (t) => {
  const slice: TensorSlice = {
    name: 'w',
    file: 0,
    byteOffset: 8,
    dtype: 'bfloat16',
    fp8: null,
    integers: null,
    numCols: 64,
    rowBegin: 0,
    rowEnd: 32,
    colBegin: 0,
    colEnd: 64,
  };
  const linear = {
    kind: 'linear',
    pieces: [slice],
    format: 'int4',
    codes: null,
    chunkEdges: [0, 64],
    firstChunk: 0,
    numChunks: 1,
  } as const;
  const origin = { modelHash: 'aa', rank: 0, worldSize: 2, layout: 1 };
  const key = (weights: readonly WeightSpec[], changed: Partial<typeof origin> = {}) =>
    Buffer.from(shardKey({ ...origin, ...changed }, { weights })).toString('hex');
  const first = key([linear]);
  t.match(first, /^[0-9a-f]{64}$/);
  t.equal(key([{ ...linear, pieces: [{ ...slice, file: 3, byteOffset: 4096 }] }]), first, 'other files');
  t.equal(key([linear, { kind: 'vector', pieces: [slice] }]), first, 'weights that are not packed');
  const others = [
    ...[{ modelHash: 'ab' }, { rank: 1 }, { worldSize: 3 }, { layout: 2 }].map((changed) => key([linear], changed)),
    key([{ ...linear, format: 'int8' }]),
    key([{ ...linear, chunkEdges: [0, 32, 64], numChunks: 2 }]),
    key([{ ...linear, firstChunk: 1 }]),
    key([linear, linear]),
    ...(['name', 'rowBegin', 'rowEnd', 'colBegin', 'colEnd', 'numCols', 'dtype'] as const).map((field) =>
      key([{ ...linear, pieces: [{ ...slice, [field]: field === 'name' ? 'v' : field === 'dtype' ? 'float16' : 7 }] }]),
    ),
  ];
  t.equal(new Set([first, ...others]).size, others.length + 1);
  t.equal(formatsOf({ weights: [linear, { ...linear, format: 'int8' }, linear] }), 'int4, int8');
  t.ok(hasQuantized({ weights: [{ ...linear, format: 'bfloat16' }, linear] }));
  t.notOk(
    hasQuantized({
      weights: [
        { ...linear, format: 'bfloat16' },
        { kind: 'vector', pieces: [slice] },
      ],
    }),
  );
});

/** The first bytes of a file with a label. */
function head(label: string, magic = 'NDSSHARD'): Buffer {
  const bytes = Buffer.alloc(headerBytes);
  bytes.write(magic);
  bytes.writeUInt32LE(Buffer.byteLength(label), 12);
  return Buffer.concat([bytes, Buffer.from(label), Buffer.alloc(16)]);
}

t.test('a label is read from the head of a file', async (t) => {
  const label = { model: '/models/größe', rank: 1, worldSize: 2, formats: 'int4' };
  t.same(parseLabel(head(formatLabel(label))), label);
  const whole = head(formatLabel(label));
  for (const bytes of [Buffer.alloc(0), whole.subarray(0, 20), whole.subarray(0, 80), head(formatLabel(label), 'NDSSHARE')])
    t.equal(parseLabel(bytes), null);
  for (const text of ['', '{', '[]', '{"model":1}', '{"model":"a","rank":0,"worldSize":1}']) t.equal(parseLabel(head(text)), null);
  const long = head(formatLabel(label));
  long.writeUInt32LE(2 ** 31, 12);
  t.equal(parseLabel(long), null, 'a label that is longer than any');
});

t.test('files used longest ago go first', async (t) => {
  const file = (digit: string, bytes: number, usedAtMs: number): CacheFile => ({ name: digit, bytes, usedAtMs });
  const files = [file('a', 10, 3), file('b', 10, 1), file('c', 10, 2), file('d', 10, 4)];
  t.same(chooseEvicted(files, 40, 'd'), []);
  t.same(chooseEvicted(files, 39, 'd'), ['b']);
  t.same(chooseEvicted(files, 20, 'd'), ['b', 'c']);
  t.same(chooseEvicted(files, 20, 'b'), ['c', 'a'], 'the one just written stays, whatever its time');
  t.same(chooseEvicted(files, 0, 'd'), ['b', 'c', 'a']);
  t.same(chooseEvicted([file('a', 1, 1), file('b', 50, 2), file('c', 1, 3)], 10, ''), ['a', 'b'], 'none older than one that went stays');
  t.same(chooseEvicted([], 0, 'd'), []);
});

t.test('a temporary file is left when its writer is', async (t) => {
  const written = (host: string, usedAtMs = 0) => ({ name: temporaryName(name('a'), { host, pid: 7 }, 'ab-1'), bytes: 1, usedAtMs });
  t.same(writerOf(written('a.b/c').name), { host: 'a.b/c', pid: 7 });
  for (const other of [name('a'), 'x.tmp', `${name('a')}.tmp`, `${name('a')}.host.x.1.tmp`]) t.equal(writerOf(other), null);
  t.notOk(isAbandoned(written('here'), 'here', 3600e3, () => true));
  t.ok(isAbandoned(written('here'), 'here', 1, () => false));
  t.notOk(
    isAbandoned(written('there'), 'here', 3600e3, () => false),
    'a process of another host may live',
  );
  t.ok(
    isAbandoned(written('there'), 'here', 3600e3 + 1, () => true),
    'but not in silence for an hour',
  );
  t.notOk(
    isAbandoned({ name: name('a'), bytes: 1, usedAtMs: 0 }, 'here', 1e9, () => false),
    'no temporary file',
  );
});

t.test('the folder', async (t) => {
  const folder = join(t.testdir(), 'shards');
  t.same(listShards(folder), []);
  makeRoom(100, folder);
  const label = { model: '/m', rank: 0, worldSize: 1, formats: 'int8' };
  const add = async (digit: string, maxBytes: number) => {
    const temporary = join(folder, temporaryName(name(digit), { host: hostname(), pid: process.pid }, digit));
    writeFileSync(temporary, head(formatLabel(label)));
    await keepFile(temporary, join(folder, name(digit)), maxBytes);
  };
  await add('a', 1e6);
  await add('b', 1e6);
  utimesSync(join(folder, name('a')), 1000, 1000);
  utimesSync(join(folder, name('b')), 2000, 2000);
  t.match(listShards(folder), [
    { name: name('b'), usedAtMs: 2e6, label },
    { name: name('a'), usedAtMs: 1e6, label },
  ]);
  touch(join(folder, name('a')));
  t.equal(listShards(folder)[0]?.name, name('a'), 'used last');
  touch(join(folder, name('c')));
  const { bytes = 0 } = listShards(folder)[0] ?? {};
  await add('d', 2 * bytes);
  t.same(readdirSync(folder).sort(), [name('a'), name('d')], 'the one used longest ago went');
  await add('d', 0);
  t.same(readdirSync(folder), [name('d')], 'the new one stays');
  truncateSync(join(folder, name('d')), 3);
  t.match(listShards(folder), [{ bytes: 3, label: null }]);
  t.equal(clearShards(folder), 3);
  t.same(readdirSync(folder), []);
});

t.test('what a killed writer left is removed, and what a living one writes is not', async (t) => {
  const folder = t.testdir();
  const { pid } = spawnSync(process.execPath, ['-e', 'process.kill(process.pid, "SIGKILL")']);
  const [dead, living] = [pid, process.pid].map((one) => join(folder, temporaryName(name('a'), { host: hostname(), pid: one }, '0')));
  for (const path of [dead, living]) writeFileSync(path as string, 'half');
  makeRoom(1, folder);
  t.same(
    [dead, living].map((path) => existsSync(path as string)),
    [false, true],
  );
  t.equal(clearShards(folder), 0);
  t.equal(readFileSync(living as string, 'utf8'), 'half');
});

t.test('no room', async (t) => {
  t.throws(() => makeRoom(2 ** 60, t.testdir()), { message: /room for .* bytes is needed/ });
  const file = join(t.testdir({ file: '' }), 'file');
  t.throws(() => makeRoom(1, file), { code: 'EEXIST' });
  t.throws(() => makeRoom(1, join(file, 'shards')), { code: 'ENOTDIR' });
});
