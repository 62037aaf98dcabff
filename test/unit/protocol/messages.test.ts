/** Control messages: encoding and decoding, and the refusal of anything outside the schema. */
import { Packr } from 'msgpackr';
import t from 'tap';
import { type DownMessage, decodeDown, decodeUp, encodeMessage, type LoadMessage, type UpMessage } from '../../../protocol/messages.ts';
import { SequenceCheck } from '../../../protocol/sequence-check.ts';
import { decodePlain, encodePlain } from '../../../protocol/wire.ts';

const load: LoadMessage = {
  type: 'load',
  model: '/models/ünïcode',
  dtype: 'float32',
  kvCacheDtype: 'int8',
  quantization: 'none',
  blockSize: 32,
  numBlocks: 70_000,
  maxModelLen: 1024,
  maxNumSeqs: 64,
  maxNumBatchedTokens: 1024,
  maxNumLogitRows: 128,
  sampleVocabSize: 2048,
  device: 'cpu',
  deterministic: false,
  numThreads: null,
  trace: false,
  draftRule: 'coupled',
  draft: null,
};

const shard = {
  rank: 1,
  heads: [4, 9],
  kvHeads: [1, 3],
  mlpColumns: [768, 1536],
  vocabRows: [0, 0],
  weightBytes: 2 ** 40,
  kvBytes: 5,
  scratchBytes: 0,
  replicatedBytes: 0,
} as const;

t.test('messages are read back as they were written', async (t) => {
  const down: DownMessage[] = [
    { type: 'probe', device: 'cuda' },
    { type: 'find', models: [{ path: '/models/a', name: './a', hash: 'abc' }] },
    load,
    { ...load, numThreads: 3 },
    { ...load, quantization: 'int4', draft: { model: '/draft', quantization: 'int8', maxModelLen: 512, isSharded: false, isGreedy: true } },
    { type: 'plan', step: 2 ** 33, directory: [1, 0, 64, 2, 64, 4] },
    { type: 'unload' },
  ];
  for (const [sequence, message] of down.entries())
    t.same(decodeDown(encodeMessage(2, sequence, message)), { epoch: 2, sequence, message });
  const up: UpMessage[] = [
    { type: 'hello', rank: 1, worldSize: 2, version: '0.1.0', isa: 'avx2', cudaBuild: 'none' },
    { type: 'probed', rank: 1, memory: { place: 'node 0, device 0000:01:00.0', totalBytes: 2 ** 37, freeBytes: 0 } },
    { type: 'found', rank: 1 },
    { type: 'progress', rank: 1, loadedBytes: 2 ** 40 },
    { type: 'loaded', rank: 1, shard },
    { type: 'unloaded', rank: 3 },
    { type: 'error', rank: 2, code: 'ERR_TENSOR', message: 'x'.repeat(70_000) },
  ];
  for (const [sequence, message] of up.entries()) t.same(decodeUp(encodeMessage(0, sequence, message)), { epoch: 0, sequence, message });
});

t.test('a message off its schema names what is wrong', async (t) => {
  const wrong: [object | null | number, RegExp][] = [
    [null, /something other than an object/],
    [[], /something other than an object/],
    [7, /something other than an object/],
    [{ sequence: 0, type: 'unload' }, /without an epoch/],
    [{ epoch: -1, sequence: 0, type: 'unload' }, /without an epoch/],
    [{ epoch: 0, type: 'unload' }, /without a sequence number/],
    [{ epoch: 0, sequence: -1, type: 'unload' }, /without a sequence number/],
    [{ epoch: 0, sequence: 0.5, type: 'unload' }, /without a sequence number/],
    [{ epoch: 0, sequence: 0, type: 'reload' }, /type "reload"/],
    [{ epoch: 0, sequence: 0, type: 'constructor' }, /type "constructor"/],
    [{ epoch: 0, sequence: 0, type: 'hello', rank: 1, worldSize: 2, version: '1', isa: 'x', cudaBuild: 'none' }, /type "hello"/],
    [{ epoch: 0, sequence: 0, type: 'unload', now: true }, /'unload' with the unknown field 'now'/],
    [{ epoch: 0, sequence: 0, ...load, draft: { model: 'x' } }, /'load' with \{"model":"x"\} in field 'draft'/],
    [{ epoch: 0, sequence: 0, type: 'probe', device: 'auto' }, /'probe' with "auto" in field 'device'/],
    [{ epoch: 0, sequence: 0, type: 'find', models: [{ path: '/a', name: 'a' }] }, /'find' with \[.*\] in field 'models'/],
    [{ epoch: 0, sequence: 0, type: 'find', models: { length: 0 } }, /'find' with .* in field 'models'/],
    [{ epoch: 0, sequence: 0, type: 'plan', step: 1 }, /'plan' with no field 'directory'/],
    [{ epoch: 0, sequence: 0, type: 'plan', step: -1, directory: [] }, /'plan' with -1 in field 'step'/],
    [{ epoch: 0, sequence: 0, type: 'plan', step: 1, directory: [1, 2] }, /field 'directory'/],
    [{ epoch: 0, sequence: 0, type: 'plan', step: 1, directory: [1, 2, 2 ** 31] }, /field 'directory'/],
    [{ epoch: 0, sequence: 0, type: 'plan', step: 1, directory: [1, 2, '3'] }, /field 'directory'/],
    [{ epoch: 0, sequence: 0, ...load, dtype: 'float16' }, /'load' with "float16" in field 'dtype'/],
    [{ epoch: 0, sequence: 0, ...load, quantization: 'fp8' }, /'load' with "fp8" in field 'quantization'/],
    [{ epoch: 0, sequence: 0, ...load, kvCacheDtype: 'fp8' }, /'load' with "fp8" in field 'kvCacheDtype'/],
    [{ epoch: 0, sequence: 0, ...load, numBlocks: 0 }, /'load' with 0 in field 'numBlocks'/],
    [{ epoch: 0, sequence: 0, ...load, numThreads: '2' }, /'load' with "2" in field 'numThreads'/],
  ];
  for (const [value, message] of wrong) t.throws(() => decodeDown(encodePlain(value)), { code: 'ERR_PROTOCOL', message });
  const replies: [object, RegExp][] = [
    [{ epoch: 0, sequence: 0, type: 'loaded', rank: 1, shard: { ...shard, heads: [9, 4] } }, /field 'shard'/],
    [{ epoch: 0, sequence: 0, type: 'loaded', rank: 1, shard: { ...shard, extra: 1 } }, /field 'shard'/],
    [{ epoch: 0, sequence: 0, type: 'probed', rank: 1, memory: { place: 'node 0', totalBytes: 1, freeBytes: -1 } }, /field 'memory'/],
    [{ epoch: 0, sequence: 0, type: 'probed', rank: 1, memory: { totalBytes: 1, freeBytes: 1 } }, /field 'memory'/],
    [{ epoch: 0, sequence: 0, type: 'unloaded', rank: 0 }, /'unloaded' with 0 in field 'rank'/],
    [{ epoch: 0, sequence: 0, type: 'error', rank: 1, code: 'ENOENT', message: '' }, /'error' with "ENOENT" in field 'code'/],
  ];
  for (const [value, message] of replies) t.throws(() => decodeUp(encodePlain(value)), { code: 'ERR_PROTOCOL', message });
});

t.test('extensions, records and structured clones are refused', async (t) => {
  const record = new Packr({ structures: [] }).pack({ epoch: 0, sequence: 0, type: 'unload' });
  const moreTypes = new Packr({ moreTypes: true, structuredClone: true });
  const bytes = [
    record,
    ...[new Set([1]), new Map(), new Date(), /x/, new Error('x'), Int32Array.of(1), 2n ** 70n].map((x) => moreTypes.pack({ x })),
  ];
  // Extensions of each width, a byte string, and the type byte that msgpack never uses.
  for (const tag of [0xc1, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8])
    bytes.push(Buffer.from([0x81, 0xa1, 0x78, tag, 1, 1, 1, 1]));
  for (const message of bytes) t.throws(() => decodePlain(message), { code: 'ERR_PROTOCOL' });
});

t.test('lengths are checked against what is there before anything is allocated', async (t) => {
  for (const [bytes, message] of [
    [[], /a length of 1/],
    [[0xdd, 0xff, 0xff, 0xff, 0xff], /a length of 4294967295/],
    [[0xdf, 0xff, 0xff, 0xff, 0xff], /a length of 8589934590/],
    [[0xdb, 0x7f, 0xff, 0xff, 0xff, 0x61], /a length of 2147483647/],
    [[0xd9], /a length of 1/],
    [[0xa2, 0x61], /a length of 2/],
    [[0xcb, 0, 0, 0], /a length of 8/],
    [[0x92, 0x01], /a length of 2/],
    [[0x91], /a length of 1/],
    [[0x01, 0x02], /one that ends at byte 1/],
    [new Array(40).fill(0x91).concat([0x01]), /deeper nesting/],
  ] as [number[], RegExp][]) {
    t.throws(() => decodePlain(Uint8Array.from(bytes)), { code: 'ERR_PROTOCOL', message });
  }
});

t.test('plain values of every width survive', async (t) => {
  for (const value of [0, 127, 128, 255, 256, 65_536, 2 ** 32, 2 ** 52, -1, -32, -33, -129, -40_000, -(2 ** 40), 1.5, null, true, false]) {
    t.equal(decodePlain(encodePlain(value)), value);
  }
  for (const length of [0, 15, 16, 31, 32, 255, 256, 70_000]) {
    t.equal(decodePlain(encodePlain('é'.repeat(length))), 'é'.repeat(length));
    t.same(decodePlain(encodePlain(new Array(length).fill(5))), new Array(length).fill(5));
  }
  for (const length of [0, 15, 16, 300]) {
    const object = Object.fromEntries(Array.from({ length }, (_, i) => [`k${i}`, i]));
    t.same(decodePlain(encodePlain(object)), object);
  }
});

t.test('a gap, a repeat and another epoch are told apart', (t) => {
  const check = new SequenceCheck(3);
  check.accept({ epoch: 3, sequence: 0 }, 'to rank 1');
  check.accept({ epoch: 3, sequence: 1 }, 'to rank 1');
  for (const [place, received] of [
    [{ epoch: 3, sequence: 1 }, 'Expected message 2 on the channel to rank 1 but received 1: a repeat'],
    [{ epoch: 3, sequence: 4 }, 'Expected message 2 on the channel to rank 1 but received 4: a gap'],
    [{ epoch: 2, sequence: 2 }, 'Expected a message of epoch 3 on the channel to rank 1 but received one of epoch 2'],
  ] as const) {
    t.throws(() => check.accept(place, 'to rank 1'), { code: 'ERR_PROTOCOL', message: received });
  }
  check.accept({ epoch: 3, sequence: 2 }, 'to rank 1');
  t.end();
});
