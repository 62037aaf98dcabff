/** Hostile bytes on every stream of messages: a typed error or a message of the schema, and nothing else. */
import t from 'tap';
import { ControlReader, encodeControl, type GangInfo } from '../../../protocol/control.ts';
import { NdsError } from '../../../protocol/errors.ts';
import { decodeDown, decodeUp, encodeMessage } from '../../../protocol/messages.ts';
import { encodePlain } from '../../../protocol/wire.ts';
import { randomIntegers } from '../../helpers/random.ts';

const gang: GangInfo = {
  epoch: 3,
  runDir: '/run/nds',
  shmPath: null,
  nodes: {
    addresses: ['10.0.0.1', 'fd00::2'],
    localAddr: '10.0.0.1',
    commKey: '00'.repeat(16),
    curve: { publicKey: 'a'.repeat(40), secretKey: 'b'.repeat(40), publicKeys: ['a'.repeat(40), 'c'.repeat(40)] },
  },
};
const failure = { rank: 1, exitCode: null, signal: 'SIGKILL', code: null, message: null };

/** Reads one message from the bytes of a frame's body. */
const framed = (reader: () => ControlReader<never>) => (bytes: Uint8Array) => {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  return reader().push(Buffer.concat([length, bytes]))[0];
};
const body = (frame: Buffer) => frame.subarray(4);

/** Each kind of stream, with good messages of it. */
const streams: readonly { name: string; decode: (bytes: Uint8Array) => unknown; good: readonly Uint8Array[] }[] = [
  {
    name: 'to a rank, from rank 0',
    decode: decodeDown,
    good: [
      encodeMessage(1, 2, { type: 'plan', step: 7, directory: [1, 0, 64] }),
      encodeMessage(0, 0, { type: 'find', models: [{ path: '/a', name: './a', hash: 'ff' }] }),
      encodeMessage(1, 3, { type: 'unload' }),
    ],
  },
  {
    name: 'to rank 0, from a rank',
    decode: decodeUp,
    good: [
      encodeMessage(1, 0, { type: 'hello', rank: 1, worldSize: 2, version: '1', isa: 'avx2', cudaBuild: 'none' }),
      encodeMessage(1, 1, { type: 'probed', rank: 1, memory: { place: 'node 1', totalBytes: 2 ** 40, freeBytes: 5 } }),
      encodeMessage(1, 2, { type: 'error', rank: 1, code: 'ERR_SYSTEM', message: 'x'.repeat(40) }),
    ],
  },
  {
    name: 'to a rank, from its launcher',
    decode: framed(ControlReader.ofRank as () => ControlReader<never>),
    good: [
      encodeControl({ type: 'gang', gang }),
      encodeControl({ type: 'lost', epoch: 0, failure }),
      encodeControl({ type: 'published', epoch: 0, key: 'mesh-port-1', value: '4001' }),
    ].map(body),
  },
  {
    name: 'to a launcher, from its rank',
    decode: framed(ControlReader.ofLauncher as () => ControlReader<never>),
    good: [encodeControl({ type: 'publish', epoch: 0, key: 'k', value: 'v' }), encodeControl({ type: 'ready', epoch: 2 ** 40 })].map(body),
  },
];

/** Decodes to a message, or to null for bytes that are refused. Anything else thrown is a failure. */
function tryDecode(decode: (bytes: Uint8Array) => unknown, bytes: Uint8Array): unknown {
  try {
    return decode(bytes);
  } catch (error) {
    if (error instanceof NdsError && error.code === 'ERR_PROTOCOL') return null;
    throw Object.assign(new Error(`${Buffer.from(bytes).toString('hex')}: ${error}`), { cause: error });
  }
}

/** Whether a value is null, a boolean, a number, a string, or an array or object of such, each with its plain prototype. */
function isPlain(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return ['boolean', 'number', 'string', 'object'].includes(typeof value);
  const prototype = Array.isArray(value) ? Array.prototype : Object.prototype;
  return Object.getPrototypeOf(value) === prototype && Object.values(value).every(isPlain);
}

for (const { name, decode, good } of streams) {
  t.test(`${name}: changed bytes`, async (t) => {
    const draw = randomIntegers(15);
    let numRefused = 0;
    for (let i = 0; i < 30_000; i++) {
      let bytes = Buffer.from(good[draw(good.length)] as Uint8Array);
      for (let change = draw(3); change >= 0; change--) {
        const at = draw(bytes.length + 1);
        const some = Buffer.from(Array.from({ length: draw(4) }, () => draw(256)));
        // Overwrites, inserts, deletes or cuts.
        const end = [at + some.length, at, at + draw(6), bytes.length][draw(4)] as number;
        bytes = Buffer.concat([bytes.subarray(0, at), some, bytes.subarray(end)]);
      }
      const message = tryDecode(decode, bytes);
      if (message === null) numRefused++;
      else if (!isPlain(message)) t.fail(bytes.toString('hex'));
    }
    t.ok(numRefused > 20_000, `${numRefused} refused`);
  });

  t.test(`${name}: keys of prototypes, at every level`, async (t) => {
    for (const bytes of good) {
      const text = Buffer.from(bytes);
      for (const key of ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty']) {
        // In place of each key, and beside each.
        for (const value of [{ [`x${key}`]: 1 }, JSON.parse(`{"${key}":{"polluted":true}}`)]) {
          const evil = encodePlain(value);
          for (let at = 0; at < text.length; at++) {
            for (const cut of [0, 1]) tryDecode(decode, Buffer.concat([text.subarray(0, at), evil.subarray(1), text.subarray(at + cut)]));
          }
        }
        const first = text[0] as number;
        const entry = Buffer.concat([Buffer.from([first + 1]), encodePlain(key), Buffer.from([0x81, 0xa1, 0x78, 1]), text.subarray(1)]);
        t.equal(tryDecode(decode, entry), null, `${key} is an unknown field`);
      }
    }
    t.equal(({} as Record<string, unknown>)['polluted'], undefined);
    t.same(Object.keys(Object.prototype), []);
  });

  t.test(`${name}: nesting and lengths`, async (t) => {
    const nested = [0x91, 0x81, 0xdc, 0xdd].map((tag) => Buffer.alloc(900_000, tag));
    const lengths = [0xdb, 0xdd, 0xdf].map((tag) => Buffer.from([0x81, 0xa4, 0x74, 0x79, 0x70, 0x65, tag, 0xff, 0xff, 0xff, 0xff]));
    const odd = [
      // Keys that are no strings, a key twice, and numbers past 2^53.
      Buffer.from([0x81, 0x91, 0x01, 0x01]),
      Buffer.from([0x81, 0x80, 0x01]),
      Buffer.from([0x81, 0xc0, 0x01]),
      Buffer.from([0x81, 0xcf, ...Array(8).fill(0xff), 0x01]),
      Buffer.concat([Buffer.from([0x83]), ...['epoch', 'epoch', 'type'].map((key) => Buffer.from([...encodePlain(key), 0x01]))]),
      ...['epoch', 'sequence', 'step', 'rank', 'gang', 'type', 'key'].map((key) => {
        const big = Buffer.from([0xcf, ...Array(8).fill(0xff)]);
        return Buffer.concat([Buffer.from([0x81]), encodePlain(key), big]);
      }),
    ];
    for (const bytes of [...nested, ...lengths, ...odd]) t.equal(tryDecode(decode, bytes), null);
    for (const bytes of good) {
      const wide = Buffer.from([0xcf, ...Array(8).fill(0xff)]);
      for (let at = 1; at < bytes.length; at++) tryDecode(decode, Buffer.concat([bytes.subarray(0, at), wide, bytes.subarray(at + 1)]));
    }
  });
}

t.test('what is refused is not kept', async (t) => {
  const huge = Buffer.from([0xff, 0xff, 0xff, 0xff]);
  const text = Buffer.concat([Buffer.from([0x81, 0xa4, 0x74, 0x79, 0x70, 0x65, 0xdb, 0, 0x0f, 0, 0]), Buffer.alloc(0x0f0000, 0x61)]);
  const before = process.memoryUsage.rss();
  for (let i = 0; i < 300; i++) {
    for (const { decode } of streams) tryDecode(decode, text);
    t.throws(() => ControlReader.ofRank().push(huge), { code: 'ERR_PROTOCOL' });
  }
  const grown = (process.memoryUsage.rss() - before) / 2 ** 20;
  // Messages of 1.2 GB in all.
  t.ok(grown < 400, `${grown.toFixed(0)} MiB`);
});
