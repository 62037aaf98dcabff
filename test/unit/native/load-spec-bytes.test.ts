/**
 * The bytes that nds.node passes to nds_cuda.so before a load: the same program is read back, and malformed bytes are
 * refused.
 */
import t from 'tap';
import { buildProgram, readModel } from '../../../rank/model/index.ts';
import { native } from '../../../rank/native.ts';
import type { ProgramSpec } from '../../../rank/program-spec.ts';
import { goldenPath } from '../../helpers/goldens.ts';

const { loadSpecBytes, rewriteLoadSpec } = native().testing as unknown as {
  loadSpecBytes: (program: ProgramSpec, draft?: ProgramSpec) => Buffer;
  rewriteLoadSpec: (bytes: Uint8Array) => Buffer;
};

const program = (name: string, worldSize = 1) =>
  buildProgram(readModel(goldenPath(name)), {
    rank: 0,
    worldSize,
    dtype: 'bfloat16',
    kvCacheDtype: 'int8',
    quantization: 'none',
    blockSize: 64,
    numBlocks: 5,
    maxModelLen: 128,
    maxNumSeqs: 3,
    maxNumBatchedTokens: 48,
    maxNumLogitRows: 7,
    sampleVocabSize: 100,
  });

t.test('a program and its draft come out as they went in', async (t) => {
  const [one, half] = [program('odd-vocab-fp32'), program('odd-vocab-fp32', 2)];
  const written = [loadSpecBytes(one), loadSpecBytes(half), loadSpecBytes(one, half), loadSpecBytes(program('qwen2-fp8-block-mixed'))];
  for (const bytes of written) t.ok(rewriteLoadSpec(bytes).equals(bytes));
  const [first, second, both] = written as [Buffer, Buffer, Buffer, Buffer];
  t.notOk(first.equals(second));
  t.ok(both.length > first.length + second.length / 2);
  t.ok(first.includes('model.safetensors'), 'files have their names');
  t.ok(first.includes('layers.1.'), 'and tensors theirs');
});

t.test('bytes of another version, too few and too many are refused', async (t) => {
  const bytes = loadSpecBytes(program('odd-vocab-fp32'));
  const refused = (changed: Uint8Array, name: string) =>
    t.throws(() => rewriteLoadSpec(changed), { code: 'ERR_INTERNAL', message: /bytes of a program of this version/ }, name);
  for (const length of [0, 3, 4, 11, 100, bytes.length >> 1, bytes.length - 1]) refused(bytes.subarray(0, length), `${length} bytes`);
  refused(Buffer.concat([bytes, Buffer.alloc(1)]), 'one byte more');
  const other = Buffer.from(bytes);
  other[0] = (other[0] as number) + 1;
  refused(other, 'another version');
  const huge = Buffer.from(bytes);
  huge.writeBigUInt64LE(2n ** 62n, 4);
  refused(huge, 'a list longer than the bytes');
});
