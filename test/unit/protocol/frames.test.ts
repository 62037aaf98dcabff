/** Values on a stream: however it is cut, and what ends it. */
import t from 'tap';
import { encodeFrame, FrameReader } from '../../../protocol/frames.ts';

const values = [{ type: 'a', list: [1, 2, 'x'.repeat(300)] }, null, 7, {}];

t.test('values arrive whole, however the stream is cut', async (t) => {
  const bytes = Buffer.concat(values.map(encodeFrame));
  for (const size of [1, 2, 3, 5, 100, bytes.length]) {
    const reader = new FrameReader(1000);
    const read: unknown[] = [];
    for (let at = 0; at < bytes.length; at += size) read.push(...reader.push(bytes.subarray(at, at + size)));
    t.same(read, values, `${size} bytes at a time`);
  }
});

t.test('a length past the limit is refused before its bytes come', async (t) => {
  const reader = new FrameReader(1000);
  t.same(reader.push(Buffer.from([233, 3])), []);
  t.throws(() => reader.push(Buffer.from([0, 0])), { code: 'ERR_PROTOCOL', message: /at most 1000 bytes but received one of 1001/ });
});

t.test('what is not plain is refused', async (t) => {
  t.throws(() => new FrameReader(1000).push(Buffer.from([3, 0, 0, 0, 0xd4, 1, 1])), { code: 'ERR_PROTOCOL', message: /0xd4/ });
  t.throws(() => new FrameReader(1000).push(Buffer.from([0, 0, 0, 0])), { code: 'ERR_PROTOCOL' }, 'an empty frame');
});

t.test('chunks are copied: a peer that trickles single bytes costs no object for each', async (t) => {
  const text = 'x'.repeat(100_000);
  const reader = new FrameReader(1 << 20);
  const chunk = Buffer.alloc(1);
  const read: unknown[] = [];
  for (const byte of Buffer.concat([encodeFrame(text), encodeFrame(7)])) {
    chunk[0] = byte;
    read.push(...reader.push(chunk));
  }
  t.same(read, [text, 7]);
});
