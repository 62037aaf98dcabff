/** `--messages FILE` as arguments of a rank, and the line about texts that were cut. */
import t from 'tap';
import { describeCuts } from '../../../bin/commands/generate-output.ts';
import { argumentChunks } from '../../../bin/commands/messages-option.ts';

t.test('a text of any length is arguments that the kernel takes', async (t) => {
  for (const text of ['', 'short', `${'a'.repeat(33332)}\u{1f600}${'\u20ac'.repeat(100_000)}`]) {
    const chunks = argumentChunks(text);
    t.equal(chunks.join(''), text);
    t.ok(chunks.every((chunk) => Buffer.byteLength(chunk) < 128 * 1024 && Buffer.from(chunk, 'utf8').toString('utf8') === chunk));
  }
  t.throws(() => argumentChunks('a'.repeat(1_500_001)), { code: 'ERR_REQUEST', message: /Expected at most 1500000 bytes/ });
});

t.test('what cut a text', async (t) => {
  const whole = { finishReason: 'stop', numTokens: 3 } as const;
  const cut = { finishReason: 'length', numTokens: 8 } as const;
  t.equal(describeCuts([whole], 8), '');
  t.equal(describeCuts([cut], 8), 'the text was cut: --max-tokens is 8\n');
  t.equal(describeCuts([cut], 9), 'the text was cut: the context is full\n');
  t.equal(describeCuts([whole, cut, whole], 8), '1 of 3 texts were cut: --max-tokens is 8\n');
});
