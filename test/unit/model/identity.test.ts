/** A model's hash: of all bytes, the same for any layout of files, and remembered only while a file is as it was. */
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { formatRecord, holds, isSettled, parseRecord } from '../../../rank/model/identity/file-record.ts';
import { segmentBytes, segmentsOf } from '../../../rank/model/identity/segments.ts';
import { isUnchanged, knownIdentity, modelHash } from '../../../rank/model/index.ts';
import { copyGoodModel, editJson, readWeights, shardWeights, writeWeights } from '../../helpers/checkpoint-edits.ts';

const sha256 = (...parts: readonly (string | Uint8Array)[]) => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
};
const tensorBytes = 5 * segmentBytes + 12;

/** A folder with one tensor of several segments, whose bytes follow from `seed`. */
function makeLarge(folder: string, seed: number): string {
  mkdirSync(folder, { recursive: true });
  const header = Buffer.from(JSON.stringify({ large: { dtype: 'F32', shape: [tensorBytes / 4], data_offsets: [0, tensorBytes] } }));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  writeFileSync(join(folder, 'config.json'), '{}');
  writeFileSync(join(folder, 'model.safetensors'), Buffer.concat([length, header, largeBytes(seed)]));
  return folder;
}

function largeBytes(seed: number): Buffer {
  const bytes = Buffer.alloc(tensorBytes, 'weights');
  bytes.writeInt32LE(seed, tensorBytes - 4);
  return bytes;
}

/** The hash as its docstring says, in one piece. */
function expectedLarge(seed: number): string {
  const bytes = largeBytes(seed);
  const segments = [0, 1, 2, 3, 4, 5].map((i) => sha256(bytes.subarray(i * segmentBytes, (i + 1) * segmentBytes)));
  return sha256('{}', JSON.stringify(['large', 'F32', [tensorBytes / 4], sha256(...segments).toString('hex')])).toString('hex');
}

/** Runs `work` with a cache of its own, some seconds later. */
async function inCache<T>(cache: string, work: () => Promise<T>, laterMs = 5000): Promise<T> {
  const { now } = Date;
  const before = process.env['NDS_CACHE_DIR'];
  process.env['NDS_CACHE_DIR'] = cache;
  Date.now = () => now() + laterMs;
  try {
    return await work();
  } finally {
    Date.now = now;
    if (before === undefined) delete process.env['NDS_CACHE_DIR'];
    else process.env['NDS_CACHE_DIR'] = before;
  }
}

function folders(t: Test): { readonly model: string; readonly cache: string; readonly weights: string } {
  const dir = t.testdir();
  const model = makeLarge(join(dir, 'model'), 1);
  return { model, cache: join(dir, 'cache'), weights: join(model, 'model.safetensors') };
}

t.test('a model is the same wherever it lies and however its weights are spread over files', async (t) => {
  const dir = t.testdir();
  const folder = (name: string, spoil: (path: string) => void = () => {}) => {
    const path = join(dir, name);
    mkdirSync(path);
    copyGoodModel(path);
    spoil(path);
    return modelHash(path);
  };
  const hash = await folder('a');
  t.match(hash, /^[0-9a-f]{64}$/);
  t.equal(await folder('b'), hash);
  t.equal(await folder('shards', (path) => shardWeights(path, (weightMap) => weightMap)), hash);
  cpSync(join(dir, 'a'), join(dir, 'copy'), { recursive: true });
  renameSync(join(dir, 'copy'), join(dir, 'moved'));
  t.equal(await modelHash(join(dir, 'moved')), hash);
  t.not(await folder('config', (path) => editJson(path, 'config.json', { rms_norm_eps: 0.5 })), hash);
  const flip = (at: (length: number) => number) => (path: string) => {
    const { data } = readWeights(path);
    data[at(data.length)] = (data[at(data.length)] as number) ^ 1;
    writeWeights(path, { data });
  };
  t.not(
    await folder(
      'first',
      flip(() => 0),
    ),
    hash,
    'one bit of the first weight',
  );
  t.not(
    await folder(
      'last',
      flip((length) => length - 1),
    ),
    hash,
    'one bit of the last',
  );
  await t.rejects(modelHash(join(dir, 'none')), { code: 'ERR_MODEL_NOT_FOUND' });
});

t.test('segments cover a tensor', async (t) => {
  t.same(segmentsOf({ byteOffset: 7, numBytes: 0 }), []);
  t.same(segmentsOf({ byteOffset: 7, numBytes: segmentBytes }), [{ byteOffset: 7, numBytes: segmentBytes }]);
  t.same(segmentsOf({ byteOffset: 7, numBytes: segmentBytes + 1 })[1], { byteOffset: 7 + segmentBytes, numBytes: 1 });
});

t.test('a record is of one state of a file', async (t) => {
  const fingerprint = { size: 10n, mtimeNs: 1_000_000_000_000n, ctimeNs: 1_500_000_000_000n, ino: 2n ** 60n };
  const record = { path: '/a', fingerprint, readAtMs: 1_502_001, digests: new Map([['x', 'ab'.repeat(32)]]) };
  t.same(parseRecord(formatRecord(record)), record);
  for (const text of ['', '{', '[]', '{"version":1}', formatRecord(record).replace('"version":1', '"version":0')])
    t.equal(parseRecord(text), null);
  t.equal(parseRecord(formatRecord(record).replace('abab', 'xyxy')), null, 'a digest that is none');
  t.ok(holds(record, '/a', fingerprint));
  t.notOk(holds(record, '/b', fingerprint));
  for (const key of ['size', 'mtimeNs', 'ctimeNs', 'ino'] as const)
    t.notOk(holds(record, '/a', { ...fingerprint, [key]: fingerprint[key] + 1n }), key);
  t.notOk(holds({ ...record, readAtMs: 1_502_000 }, '/a', fingerprint), 'a file changed within a tick of its hash');
  t.ok(isSettled({ ...fingerprint, mtimeNs: 0n }, 1_502_001));
  t.notOk(isSettled({ ...fingerprint, mtimeNs: 2_000_000_000_000n }, 1_502_001), 'a file of the future');
});

t.test('a large file is hashed once', async (t) => {
  const { model, cache } = folders(t);
  await inCache(cache, async () => {
    t.equal(await knownIdentity(model), null, 'not known yet');
    t.equal(existsSync(cache), false);
    const bytes: number[] = [];
    const both = await Promise.all([modelHash(model, (numBytes) => bytes.push(numBytes)), modelHash(model)]);
    t.same(both, [expectedLarge(1), expectedLarge(1)]);
    t.same(
      bytes,
      [...bytes].sort((a, b) => a - b),
    );
    t.equal((await knownIdentity(model))?.hash, expectedLarge(1));
    t.equal(readdirSync(join(cache, 'hashes')).length, 1, 'one record, no lock, no temporary file');
    const [name = ''] = readdirSync(join(cache, 'hashes'));
    writeFileSync(join(cache, 'hashes', name), '{"version":1');
    t.equal(await knownIdentity(model), null, 'a torn record is none');
    t.equal(await modelHash(model), expectedLarge(1));
  });
});

t.test('a file that changed is hashed again', async (t) => {
  const { model, cache, weights } = folders(t);
  await inCache(cache, async () => {
    utimesSync(weights, 1e9, 1e9);
    await modelHash(model);
    const known = await knownIdentity(model);
    if (known === null) throw new Error('not known');
    const { size } = statSync(weights);
    const original = readFileSync(weights);
    makeLarge(model, 2);
    utimesSync(weights, 1e9, 1e9);
    t.match(statSync(weights), { size, mtimeMs: 1e12 }, 'with its size and the time of its change set back');
    t.notOk(isUnchanged(known));
    t.equal(await knownIdentity(model), null);
    t.equal(await modelHash(model), expectedLarge(2));
    writeFileSync(`${weights}.other`, original);
    utimesSync(`${weights}.other`, 1e9, 1e9);
    renameSync(`${weights}.other`, weights);
    t.equal(await knownIdentity(model), null, 'another file in its place');
    t.equal(await modelHash(model), expectedLarge(1));
    rmSync(weights);
    t.notOk(isUnchanged(known), 'a file that is gone');
  });
});

t.test('what was hashed within a tick of its last change is hashed again', async (t) => {
  const { model, cache } = folders(t);
  await inCache(cache, () => modelHash(model), 0);
  await inCache(cache, async () => {
    t.equal(await knownIdentity(model), null);
    t.equal(await modelHash(model), expectedLarge(1));
    t.equal((await knownIdentity(model))?.hash, expectedLarge(1));
  });
});

t.test('a cache that cannot be written costs another hash', async (t) => {
  const { model, cache } = folders(t);
  writeFileSync(cache, 'a file where the folder would be');
  await inCache(cache, async () => {
    t.equal(await modelHash(model), expectedLarge(1));
    t.equal(await knownIdentity(model), null);
  });
});
