/** The renderers of bench reports, on records made by hand. */
import t from 'tap';
import { bytesInWords, digits } from '../../../../bin/bench/format.ts';
import { plotsOf, ticksUpTo } from '../../../../bin/bench/plot.ts';
import { type BenchRecord, type BenchReport, benchSchema, limitShare, spreadOf } from '../../../../bin/bench/record.ts';
import { renderHtml } from '../../../../bin/bench/render-html.ts';
import { renderMarkdown, renderTable } from '../../../../bin/bench/render-text.ts';
import { checkHtml, checkMarkdown } from '../../../helpers/bench-output.ts';

const record: BenchRecord = {
  schema: benchSchema,
  command: 'latency',
  name: 'tg128',
  series: 'decode',
  x: { name: 'depth', value: 0 },
  unit: 'tokens/s',
  value: spreadOf([10, 30, 20]),
  numWarmups: 1,
  numRounds: 3,
  limits: [limitShare('B/s', 1e9, [10, 30, 20], [20e9, 40e9, 40e9])],
  numRanks: 2,
  numThreads: 1,
  run: {
    engine: 'nano-dist-spec',
    version: '1.2.3',
    commit: 'abc1234',
    node: 'v20',
    machine: { processor: 'A|B <C>', isa: 'avx2', cores: 2, memoryBytes: 2 ** 33 },
    cuda: null,
  },
  model: {
    name: 'folder_with_&',
    isSynthetic: true,
    numParameters: 5e8,
    weightBytes: 2 ** 30,
    kvBytesPerToken: 1024,
    storedDtype: 'bfloat16',
    dtype: 'float32',
    kvCacheDtype: 'float32',
    quantization: 'none',
    loadSeconds: 1.234,
  },
  details: {},
};
const report: BenchReport = {
  title: 'ndsrun bench latency',
  records: [record, { ...record, name: 'tg128 @ d64', x: { name: 'depth', value: 64 } }, { ...record, name: 'pp8', limits: [], x: null }],
  extra: {},
};

t.test('spread and shares', async (t) => {
  t.same(spreadOf([4, 1, 3, 2]), { median: 2.5, min: 1, max: 4, lowerQuartile: 1.75, upperQuartile: 3.25, values: [4, 1, 3, 2] });
  t.equal(spreadOf([7]).median, 7);
  t.throws(() => spreadOf([]), RangeError);
  t.same(record.limits[0]?.share.values, [0.5, 0.75, 0.5], 'each round by its own probe');
});

t.test('numbers', async (t) => {
  const cases: [number, string][] = [
    [0, '0'],
    [0.01234, '0.0123'],
    [9.999, '10.00'],
    [123.4, '123'],
    [12345678, '12,345,678'],
    [Number.NaN, '-'],
  ];
  for (const [value, expected] of cases) t.equal(digits(value), expected);
  t.same([1000, 1024, 1.5 * 2 ** 20].map(bytesInWords), ['1000 B', '1 KiB', '1.5 MiB']);
  t.same(
    [0, 10, 99, 100, 3].map((most) => ticksUpTo(most).at(-1)),
    [1, 10, 100, 100, 3],
  );
});

t.test('the table has each record once, below its machine and model', async (t) => {
  const text = renderTable(report);
  t.match(text, /^nano-dist-spec 1\.2\.3 \(abc1234\), Node v20\nA\|B <C>, 2 cores, avx2, 8 GiB\nfolder_with_& \(random weights\): /);
  t.match(text, '2 ranks of 1 thread; medians of 3 rounds after 1 warm-up');
  t.match(text, /^tg128 +20\.0 +tokens\/s +10\.0–30\.0 +0\.50 of 40\.0 GB\/s$/m);
  t.match(text, /^pp8 +20\.0 +tokens\/s +10\.0–30\.0$/m);
  t.notMatch(text, 'of arithmetic', 'no column without values');
  const apart = renderTable({ ...report, records: [record, { ...record, numRanks: 1 }] });
  t.equal(apart.match(/^nano-dist-spec/gm)?.length, 2, 'one heading for each number of ranks');
});

t.test('Markdown escapes what comes from outside', async (t) => {
  const text = renderMarkdown(report);
  t.same(
    checkMarkdown(text).map(([name]) => name),
    ['', 'tg128', 'tg128 @ d64', 'pp8'],
  );
  t.match(text, 'A\\|B \\<C\\>');
  t.match(text, 'folder\\_with\\_&');
});

t.test('the page is well-formed, and needs nothing', async (t) => {
  const page = renderHtml(report);
  checkHtml(page);
  t.match(page, 'A|B &lt;C&gt;');
  t.match(page, 'prefers-color-scheme:dark');
  t.notMatch(page, /<script|<link|src=|url\(|https?:/);
  t.equal(page.match(/<polyline/g)?.length, 1, 'a line over depths');
  t.equal(page.match(/<rect/g)?.length, 1, 'a bar for what has no depth');
});

t.test('plots of nothing but zeros, and of one place', async (t) => {
  const zero = { ...record, value: spreadOf([0]) };
  for (const records of [[zero], [zero, { ...zero, x: { name: 'depth', value: 8 } }]]) {
    for (const { svg } of plotsOf(records)) t.notMatch(svg, /NaN|Infinity/);
  }
});
