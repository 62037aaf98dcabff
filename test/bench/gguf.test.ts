/** GGUF files of made-up weights: read back by a reader of this test, beside the checkpoint's own values. */
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { shapes, tensorsOf } from '../../bin/bench/shapes.ts';
import { SyntheticValues } from '../../bin/bench/synthetic-values.ts';
import { ggmlTypes, halfOf } from './peers/ggml-blocks.ts';
import { writeGguf } from './peers/gguf-file.ts';
import { bytesRead, type Format, ggufMetadata, ggufName, ggufTensors } from './peers/gguf-model.ts';

/** Heads of 4 with halves of 2; 256 columns are one block of Q6_K. */
const llama = { ...shapes['smollm2-135m'], hiddenSize: 256, intermediateSize: 64, numLayers: 1, numHeads: 4, numKvHeads: 2, headDim: 4 };
const tiny = { ...llama, vocabSize: 300, maxPositions: 64, isTied: true, family: 'llama' as const };

const half = (bits: number) => {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, (bits & 1023) / 1024];
  return sign * (exponent === 0 ? fraction * 2 ** -14 : (1 + fraction) * 2 ** (exponent - 15));
};

/** Values of a block, by the type's number. */
const readers: Readonly<Record<number, (b: Buffer) => number[]>> = {
  0: (b) => [b.readFloatLE()],
  30: (b) => [new Float32Array(Uint32Array.of(b.readUInt16LE() << 16).buffer)[0] as number],
  8: (b) => Array.from({ length: 32 }, (_, i) => half(b.readUInt16LE()) * b.readInt8(2 + i)),
  2: (b) => Array.from({ length: 32 }, (_, i) => half(b.readUInt16LE()) * ((((b[2 + (i % 16)] as number) >> (i < 16 ? 0 : 4)) & 15) - 8)),
  14: (b) =>
    Array.from({ length: 256 }, (_, i) => {
      const [h, j] = [Math.floor(i / 128), i % 128];
      const low = ((b[64 * h + (j % 64)] as number) >> (j < 64 ? 0 : 4)) & 15;
      const high = ((b[128 + 32 * h + (j % 32)] as number) >> (2 * Math.floor(j / 32))) & 3;
      return half(b.readUInt16LE(208)) * b.readInt8(192 + (i >> 4)) * (low + 16 * high - 32);
    }),
};
const blocks: Readonly<Record<number, readonly [values: number, bytes: number]>> = {
  0: [1, 4],
  2: [32, 18],
  8: [32, 34],
  14: [256, 210],
  30: [1, 2],
};

/** Metadata and tensors of a file. */
function readGguf(bytes: Buffer) {
  let at = 0;
  const take = (count: number) => {
    at += count;
    return bytes.subarray(at - count, at);
  };
  const u32 = () => take(4).readUInt32LE();
  const u64 = () => Number(take(8).readBigUInt64LE());
  const text = (): string => take(u64()).toString();
  const value = (type: number): unknown => {
    if (type === 4) return u32();
    if (type === 5) return take(4).readInt32LE();
    if (type === 6) return take(4).readFloatLE();
    if (type === 7) return take(1)[0] === 1;
    if (type === 8) return text();
    if (type !== 9) throw new Error(`Expected a known type but received ${type}`);
    const inner = u32();
    return Array.from({ length: u64() }, () => value(inner));
  };
  if (take(4).toString() !== 'GGUF' || u32() !== 3) throw new Error('Expected GGUF, version 3');
  const [numTensors, numEntries] = [u64(), u64()];
  const metadata = new Map(Array.from({ length: numEntries }, () => [text(), value(u32())] as const));
  const infos = Array.from({ length: numTensors }, () => {
    const name = text();
    const dims = Array.from({ length: u32() }, u64);
    return { name, dims, type: u32(), offset: u64() };
  });
  const data = Math.ceil(at / 32) * 32;
  const tensors = infos.map(({ name, dims, type, offset }) => {
    const [perBlock, size] = blocks[type] as readonly [number, number];
    const count = dims.reduce((product, dim) => product * dim, 1) / perBlock;
    if (offset % 32 !== 0 || data + offset + count * size > bytes.length) throw new Error(`Expected ${name} in the file`);
    const block = (i: number) => bytes.subarray(data + offset + i * size, data + offset + (i + 1) * size);
    return [name, { dims, type, values: Array.from({ length: count }, (_, i) => readers[type]?.(block(i)) ?? []).flat() }] as const;
  });
  return { metadata, tensors: new Map(tensors) };
}

const checkpoint = new SyntheticValues(tensorsOf(tiny));

/** The checkpoint's values of a tensor. */
function stored(i: number): number[] {
  const words = [...checkpoint.pieces(i)].flatMap((piece) => [...piece]);
  return words.map((word) => new Float32Array(Uint32Array.of(word << 16).buffer)[0] as number);
}

/** Largest error, of the largest value. */
const tolerance: Readonly<Record<number, number>> = { 0: 0, 30: 0, 8: 0.005, 14: 0.04, 2: 0.14 };

async function write(t: { testdir(): string }, format: Format) {
  const path = join(t.testdir(), 'model.gguf');
  const file = openSync(path, 'w');
  await writeGguf(file, ggufMetadata('tiny', tiny, format), ggufTensors(tiny, format), () => {});
  closeSync(file);
  return readGguf(readFileSync(path));
}

for (const format of ['bf16', 'int8', 'int4'] as const) {
  t.test(`${format}: the checkpoint's values, under llama.cpp's names`, async (t) => {
    const { metadata, tensors } = await write(t, format);
    t.equal(metadata.get('general.architecture'), 'llama');
    t.equal(metadata.get('llama.attention.key_length'), 4);
    t.equal(new Set(metadata.get('tokenizer.ggml.tokens') as string[]).size, 300, 'one token for each row of the embedding');
    t.equal((metadata.get('tokenizer.ggml.token_type') as number[]).length, 300);
    t.equal(tensors.size, tensorsOf(tiny).length);
    tensorsOf(tiny).forEach(({ name, shape }, i) => {
      const found = tensors.get(ggufName(name));
      if (found === undefined) throw new Error(`Expected ${name} in the file`);
      t.same(found.dims, shape.toReversed(), name);
      const numCols = shape.at(-1) as number;
      const values = stored(i);
      const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const isRotated = /[qk]_proj/.test(name);
      const error = found.values.reduce((most, value, j) => {
        const [row, column] = [Math.floor(j / numCols), j % numCols];
        // Of each head of four rows, llama.cpp has 0, 2, 1, 3.
        const from = isRotated ? row - (row % 4) + ([0, 2, 1, 3][row % 4] as number) : row;
        return Math.max(most, Math.abs(value - (values[from * numCols + column] as number)));
      }, 0);
      t.ok(error <= (tolerance[found.type] as number) * largest, `${name}: ${error / largest}`);
    });
    const head = tensors.get('token_embd.weight')?.type;
    t.equal(head, { bf16: 30, int8: 8, int4: 14 }[format]);
    t.equal(tensors.get('blk.0.ffn_up.weight')?.type, { bf16: 30, int8: 8, int4: 2 }[format]);
  });
}

t.test('a vocabulary of the size of Qwen3', async (t) => {
  const path = join(t.testdir(), 'model.gguf');
  const file = openSync(path, 'w');
  const sizes = { ...tiny, vocabSize: shapes['qwen3-0.6b']?.vocabSize as number };
  await writeGguf(file, ggufMetadata('tiny', sizes, 'int8'), [], () => {});
  closeSync(file);
  const tokens = readGguf(readFileSync(path)).metadata.get('tokenizer.ggml.tokens') as string[];
  t.equal(new Set(tokens).size, 151_936, 'all of them, distinct');
});

t.test('bytes of a shape, of which an LM head of its own leaves out the embedding', async (t) => {
  const matrices = 256 * (16 + 8 + 8) + 16 * 256 + 3 * 64 * 256;
  const norms = 4 * 3 * 256;
  t.equal(bytesRead(tiny, 'bf16'), 2 * (matrices + 300 * 256) + norms);
  t.equal(bytesRead({ ...tiny, isTied: false }, 'int4'), (matrices * 18) / 32 + 300 * 210 + norms);
});

t.test('halves, nearest and ties to even', async (t) => {
  const known: [number, number][] = [
    [0, 0],
    [1, 0x3c00],
    [-2, 0xc000],
    [65504, 0x7bff],
    [65520, 0x7c00],
    [2 ** -24, 1],
    [2 ** -25, 0],
    [3 * 2 ** -25, 2],
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
    [2 - 2 ** -12, 0x4000],
    [2 ** -14 - 2 ** -26, 0x0400],
  ];
  for (const [value, bits] of known) t.equal(halfOf(value), bits, String(value));
});

t.test('blocks by hand', async (t) => {
  const x = Float32Array.from({ length: 32 }, (_, i) => i - 16);
  const four = new Uint8Array(18);
  ggmlTypes.Q4_0.quantize(x, 0, four, 0);
  // Scale 2: −16 … 15 are −8 … 7.5, in bytes of values i and i + 16, plus 8.5 and cut.
  t.same([...four.subarray(0, 2)], [0, 0x40]);
  t.same([four[2], four[3], four[17]], [0x80, 0x91, 0xf8]);
  const eight = new Uint8Array(34);
  ggmlTypes.Q8_0.quantize(
    x.map((value) => (value === -16 ? -127 : value)),
    0,
    eight,
    0,
  );
  t.same([...eight.subarray(0, 4)], [0, 0x3c, 256 - 127, 256 - 15]);
});
