/** A progress line on a terminal, in a log, and quiet. */
import t from 'tap';
import { bytesText, ProgressBar, progressText } from '../../../bin/progress-bar.ts';

function sink(isTTY: boolean, columns = 60) {
  const written: string[] = [];
  return { written, stream: { isTTY, columns, write: (text: string | Uint8Array) => written.push(String(text)) > 0 } };
}

t.test('text of a line', async (t) => {
  t.equal(
    progressText('model.safetensors', 'bytes', 1.2e9, 2.4e9, 2, 200),
    'model.safetensors [##########··········] 50 % 1.20 GB of 2.40 GB, 600 MB/s',
  );
  t.equal(progressText('prompts', 'items', 3, 4, 1, 200), 'prompts [###############·····] 75 % 3 of 4');
  t.equal(progressText('a long label', 'items', 3, 4, 1, 20).length, 19);
  t.match(progressText('nothing', 'bytes', 0, 0, 0, 200), /100 %/);
  t.same([0, 999, 1000, 1.5e12].map(bytesText), ['0 B', '999 B', '1.00 kB', '1.50 TB']);
});

t.test('a terminal that does not know its width has 80 columns', async (t) => {
  const { written, stream } = sink(true, 0);
  const bar = new ProgressBar('work', 'items', stream);
  bar.update(1, 2);
  bar.end();
  t.match(written.join(''), /50 % 1 of 2/);
});

t.test('what ends within the delay is not shown, and a line that failed is removed', async (t) => {
  for (const isTTY of [true, false]) {
    const { written, stream } = sink(isTTY);
    const bar = new ProgressBar('work', 'items', stream, 60_000);
    bar.update(1, 2);
    bar.end();
    bar.erase();
    t.same(written, []);
  }
  const { written, stream } = sink(true);
  const bar = new ProgressBar('work', 'items', stream, 20);
  bar.update(1, 3);
  t.same(written, [], 'not yet');
  await new Promise((resolve) => setTimeout(resolve, 30));
  bar.update(2, 3);
  t.equal(written.length, 1);
  bar.erase();
  t.equal(written.at(-1), '\r\u001b[K');
  bar.erase();
  t.equal(written.length, 2, 'once');
  bar.update(3, 3);
  bar.end();
  const ended = written.length;
  bar.erase();
  t.equal(written.length, ended, 'a line that has ended stays');
});

t.test('a terminal gets redrawn lines, a log one line, and quiet nothing', async (t) => {
  for (const isTTY of [true, false]) {
    const { written, stream } = sink(isTTY);
    const bar = new ProgressBar('work', 'items', stream);
    for (let i = 0; i <= 1000; i++) bar.update(i, 1000);
    bar.end();
    const text = written.join('');
    t.equal(text.split('\n').length, 2);
    t.equal(text.includes('\r'), isTTY);
    t.match(text, /100 % 1000 of 1000\n$/);
  }
  new ProgressBar('work', 'items', null).end();
});
