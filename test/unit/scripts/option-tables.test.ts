/** The option tables of docs/ match types and commands. */
import t from 'tap';
import { documents, fill, membersOf } from '../../../scripts/option-tables.mjs';

t.test('members and their docstrings', async (t) => {
  const text =
    'export interface A extends B {\n  /** One\n   * or two, `x`. */\n  readonly size?: number;\n  /** A flag. */\n  flag: boolean;\n}';
  t.same(membersOf(text, 'A'), [
    ['size', 'One or two, `x`.'],
    ['flag', 'A flag.'],
  ]);
  t.throws(() => membersOf(text, 'C'), /interface C/);
  t.throws(() => membersOf('interface A { size: number }', 'A'), /docstring for A\.size/);
});

t.test('what stands between marks is replaced', async (t) => {
  const text = 'a\n<!-- options: x -->\nold\n<!-- /options -->\nb\n<!-- options: y -->\n<!-- /options -->\n';
  const filled = fill(text, (name) => `new ${name}`);
  t.equal(filled, 'a\n<!-- options: x -->\nnew x\n<!-- /options -->\nb\n<!-- options: y -->\nnew y\n<!-- /options -->\n');
  t.equal(
    fill(filled, (name) => `new ${name}`),
    filled,
  );
});

t.test('docs/ is up to date: npm run docs', async (t) => {
  const all = documents();
  t.ok(all.some(({ text }) => text.includes('<!-- options: load -->')));
  for (const { file, text, filled } of all) t.equal(text, filled, file);
});
