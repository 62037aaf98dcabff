/** Lines, consoles, writers and tails, the parts of output. */
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Console } from '../../../launcher/console.ts';
import { FdWriter } from '../../../launcher/fd-writer.ts';
import { characterBoundary, LineBuffer } from '../../../launcher/line-buffer.ts';
import { Tail } from '../../../launcher/tail.ts';

const bytes = (text: string): Buffer => Buffer.from(text);

t.test('lines are cut where they end, however the stream is', async (t) => {
  const text = 'one\n\ntwo\r\nthree äöü €\nrest';
  for (let size = 1; size <= text.length; size++) {
    const lines = new LineBuffer();
    const whole = bytes(text);
    const found: string[] = [];
    for (let at = 0; at < whole.length; at += size) found.push(...lines.push(whole.subarray(at, at + size)).map(String));
    t.same(found, ['one\n', '\n', 'two\r\n', 'three äöü €\n']);
    t.equal(String(lines.takePartial(true)), 'rest');
    t.notOk(lines.hasPartial);
  }
});

t.test('long lines are cut, never within a character', async (t) => {
  const lines = new LineBuffer(4);
  t.same(lines.push(bytes('12345678\n')).map(String), ['1234\n', '5678\n']);
  t.same(lines.push(bytes('123€€x')).map(String), ['123\n', '€\n']);
  t.equal(String(lines.takePartial(true)), '€x');
});

t.test('a partial line keeps half a character back, but not at the end', async (t) => {
  const euro = bytes('€');
  const lines = new LineBuffer();
  lines.push(Buffer.concat([bytes('a'), euro.subarray(0, 2)]));
  t.equal(String(lines.takePartial(false)), 'a');
  lines.push(euro.subarray(2));
  t.equal(String(lines.takePartial(false)), '€');
  lines.push(euro.subarray(0, 1));
  t.same(lines.takePartial(true), euro.subarray(0, 1));
});

t.test('character boundaries', async (t) => {
  for (const text of ['a', 'é', '€', '𝄞', 'x𝄞']) t.equal(characterBoundary(bytes(text), bytes(text).length), bytes(text).length);
  t.same(
    [1, 2, 3, 4, 5].map((limit) => characterBoundary(bytes('x𝄞'), limit)),
    [1, 1, 1, 1, 5],
  );
});

/** A console that writes to memory. */
function consoleOf(): { console: Console; text: () => string } {
  const written: Buffer[] = [];
  const writer = { write: (chunk: Buffer) => written.push(chunk), drained: async () => {} };
  return { console: new Console(writer as unknown as FdWriter), text: () => String(Buffer.concat(written)) };
}

t.test('a line that is open goes on without a prefix, unless another spoke', async (t) => {
  const { console, text } = consoleOf();
  const [zero, one] = [{ prefix: bytes('[0] ') }, { prefix: bytes('[1] ') }];
  console.write(zero, [bytes('a\n'), bytes('once ')]);
  t.ok(console.isOpenFor(zero));
  console.write(zero, [bytes('upon ')]);
  console.write(one, [bytes('b\n')]);
  t.notOk(console.isOpenFor(zero));
  console.write(zero, [bytes('a time\n'), bytes('c')]);
  console.write(one, []);
  t.equal(text(), '[0] a\n[0] once upon \n[1] b\n[0] a time\n[0] c');
});

t.test('a writer keeps the order through memory and spool, and says what it dropped', async (t) => {
  const path = join(t.testdir(), 'out');
  const fd = openSync(path, 'w');
  const writer = new FdWriter(fd, t.fail, { memoryBytes: 10, fileBytes: 30 });
  for (let index = 0; index < 10; index++) writer.write(bytes(`${index}2345678\n`));
  await writer.drained();
  writer.write(bytes('later\n'));
  await writer.drained();
  closeSync(fd);
  // One is being written, one is queued in memory, three are in the spool.
  const kept = [0, 1, 2, 3, 4].map((index) => `${index}2345678\n`).join('');
  t.equal(readFileSync(path, 'utf8'), `${kept}\n[ndsrun] 45 bytes of output were dropped here: they were not read in time\nlater\n`);
});

t.test('without room for a spool, a writer drops and says so', async (t) => {
  const path = join(t.testdir(), 'out');
  const fd = openSync(path, 'w');
  const { TMPDIR } = process.env;
  process.env['TMPDIR'] = '/proc';
  const writer = new FdWriter(fd, t.fail, { memoryBytes: 10, fileBytes: 1000 });
  for (let index = 0; index < 4; index++) writer.write(bytes(`${index}2345678\n`));
  if (TMPDIR === undefined) delete process.env['TMPDIR'];
  else process.env['TMPDIR'] = TMPDIR;
  writer.write(bytes('5\n'));
  await writer.drained();
  writer.write(bytes('later\n'));
  await writer.drained();
  closeSync(fd);
  const kept = '02345678\n12345678\n';
  t.equal(readFileSync(path, 'utf8'), `${kept}\n[ndsrun] 20 bytes of output were dropped here: they were not read in time\nlater\n`);
});

t.test('a writer says once why it ended', async (t) => {
  const fd = openSync('/dev/null', 'r');
  const errors: (string | undefined)[] = [];
  const writer = new FdWriter(fd, ({ code }) => errors.push(code));
  writer.write(bytes('x'));
  await writer.drained();
  writer.write(bytes('y'));
  await writer.drained();
  closeSync(fd);
  t.same(errors, ['EBADF']);
});

t.test('a tail keeps the last lines and the last bytes', async (t) => {
  const tail = new Tail(3, 20);
  t.same(tail.lines(), []);
  for (const chunk of ['a\nb', 'c\n', 'd\ne\n', 'f']) tail.push(bytes(chunk));
  t.same(tail.lines(), ['d', 'e', 'f']);
  tail.push(bytes(`\n${'x'.repeat(30)}`));
  t.same(tail.lines(), ['x'.repeat(20)]);
});
