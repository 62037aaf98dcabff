/** The documents: valid links, line lengths, and the size of the README. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import t from 'tap';
import { root } from '../../../scripts/files.mjs';

const documents = [
  'README.md',
  'CONTRIBUTING.md',
  ...readdirSync(join(root, 'docs')).flatMap((name) => (/\.md$/.test(name) ? `docs/${name}` : [])),
];
const read = (file: string) => readFileSync(join(root, file), 'utf8');
const withoutCode = (text: string) => text.replace(/^```.*?^```/gms, '');

/** GitHub's anchor of a heading. */
function anchorOf(heading: string): string {
  const text = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase();
  return text.replace(/[^\p{L}\p{N}_\- ]/gu, '').replaceAll(' ', '-');
}

function anchorsOf(file: string): string[] {
  return [...withoutCode(read(file)).matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) => anchorOf(heading));
}

for (const file of documents) {
  t.test(file, async (t) => {
    const text = withoutCode(read(file));
    for (const [, link = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(link)) continue;
      const [path = '', anchor] = link.split('#');
      const target = path === '' ? file : normalize(join(dirname(file), path));
      t.ok(existsSync(join(root, target)), link);
      if (anchor !== undefined) t.ok(anchorsOf(target).includes(anchor), link);
    }
    const isLong = (line: string) => [...line].length > 120 && !/^(?:\||!\[)/.test(line);
    // Help is printed as the command prints it.
    const written = read(file).replace(/^```text\nUsage: .*?^```/gms, '');
    t.same(written.split('\n').filter(isLong), [], 'lines of at most 120 characters');
  });
}

t.test('README has at most 120 lines', async (t) => {
  t.ok(read('README.md').trimEnd().split('\n').length <= 120);
});
