/** Packing and products: correct, and bit-identical for any batch, number of threads and ranks, and instruction set. */
import { test } from 'tap';
import { native } from '../../rank/native.ts';
import { multipliesBf16 } from '../../rank/options.ts';
import { randomIntegers } from '../helpers/random.ts';
import { amxDot, type Format, normal, type Problem, problem, randomEdges, referenceLinear, rows } from '../references/linear.ts';

interface Result {
  readonly numRoots: number;
  readonly roots: Float32Array;
}

const isas = native().cpuInfo().isas;
const dtypes: readonly Format[] = ['bfloat16', 'float16', 'float32'];
const formats: readonly Format[] = [...dtypes, 'int8', 'int4'];
const xDtypes: readonly Problem['xDtype'][] = ['float32', 'bfloat16'];

const linear = (isa: string, p: Problem, numThreads = 1): Result =>
  (native().testing.linear as (options: object) => Result)({ isa, numThreads, ...p });

/** Bit patterns: -0 and 0 differ, and a NaN equals itself. */
const bits = (values: Float32Array): Uint32Array => new Uint32Array(values.buffer, values.byteOffset, values.length);
const sameBits = (a: Float32Array, b: Float32Array): boolean =>
  Buffer.compare(Buffer.from(bits(a).slice().buffer), Buffer.from(bits(b).slice().buffer)) === 0;

/** Whether hardware multiplies pairs of bf16; all else is fp32 multiply-adds, whose order the reference follows. */
const isDot = (isa: string, p: Problem): boolean => multipliesBf16(isa) && p.format === 'bfloat16' && p.xDtype === 'bfloat16';

function eachCombination(body: (isa: string, format: Format, xDtype: Problem['xDtype']) => void): void {
  for (const isa of isas) for (const format of formats) for (const xDtype of xDtypes) body(isa, format, xDtype);
}

test('sums of small integers are exact for every shape and stored type', async (t) => {
  const integers = randomIntegers(1);
  eachCombination((isa, format, xDtype) => {
    if (!dtypes.includes(format)) return;
    for (const [m, k, n] of [
      [1, 1, 1],
      [1, 70, 33],
      [3, 33, 64],
      [5, 257, 31],
      [13, 96, 100],
      [40, 131, 70],
    ] as const) {
      // Multiples of 1/8 below 16 are exact in all types, and so are sums of 257 products.
      const draw = (): number => integers(255) / 8 - 15.875;
      const edges = randomEdges(integers, k, 1 + integers(9));
      const p = problem({ m, k, n, format, xDtype, chunkEdges: edges, bias: integers(2) === 0 }, draw);
      const expected = new Float32Array(m * n);
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
          let sum = 0;
          for (let l = 0; l < k; l++) sum += (p.x[i * k + l] ?? 0) * (p.w[j * k + l] ?? 0);
          expected[i * n + j] = sum + (p.bias?.[j] ?? 0);
        }
      }
      t.ok(sameBits(linear(isa, p).roots, expected), `${isa} ${format} x ${xDtype}, [${m}, ${k}] x [${n}, ${k}], chunks ${edges}`);
    }
  });
});

test('rounding follows the documented order of additions', async (t) => {
  const integers = randomIntegers(2);
  eachCombination((isa, format, xDtype) => {
    for (const [m, k, n, numChunks] of [
      [1, 97, 33, 1],
      [4, 160, 40, 4],
      [7, 203, 37, 9],
    ] as const) {
      const p = problem({ m, k, n, format, xDtype, chunkEdges: randomEdges(integers, k, numChunks), bias: true }, () => normal(integers));
      const { roots } = linear(isa, p);
      const byTiles = isa === 'amx' && isDot(isa, p);
      const reference = referenceLinear(p, isa === 'portable', byTiles ? amxDot : undefined);
      if (isDot(isa, p) && !byTiles) {
        const largest = roots.reduce((most, value, i) => Math.max(most, Math.abs(value - (reference[i] ?? 0))), 0);
        t.ok(largest < 1e-4, `${isa}: at most ${largest} from fp32 products`);
      } else {
        t.ok(sameBits(roots, reference), `${isa} ${format} x ${xDtype} m ${m}`);
      }
    }
  });
});

test('a row is the same alone and among others', async (t) => {
  const integers = randomIntegers(3);
  eachCombination((isa, format, xDtype) => {
    const p = problem({ m: 131, k: 141, n: 70, format, xDtype, chunkEdges: randomEdges(integers, 141, 5) }, () => normal(integers));
    const all = linear(isa, p).roots;
    for (const m of [1, 2, 12, 13, 37]) {
      for (const first of [0, 50, p.m - m]) {
        const some = linear(isa, rows(p, first, first + m)).roots;
        t.ok(sameBits(some, all.slice(first * p.n, (first + m) * p.n)), `${isa} ${format} x ${xDtype} rows ${first} to ${first + m}`);
      }
    }
  });
});

test('every small number of rows has the bits of its rows one by one', async (t) => {
  const integers = randomIntegers(7);
  eachCombination((isa, format, xDtype) => {
    // Two blocks of AMX and a ragged third; whole groups of int8, and an odd number of their tiles.
    const shape = { m: 70, k: 317, n: 34, format, xDtype, chunkEdges: [0, 31, 64, 64, 77, 218, 317], bias: true };
    const p = problem(shape, () => normal(integers));
    const oneByOne = Array.from({ length: p.m }, (_, i) => [...linear(isa, rows(p, i, i + 1)).roots]).flat();
    for (const m of [...Array.from({ length: 40 }, (_, i) => i + 1), 48, 49, 64, 65, p.m]) {
      const expected = Float32Array.from(oneByOne.slice(0, m * p.n));
      t.ok(sameBits(linear(isa, rows(p, 0, m)).roots, expected), `${isa} ${format} x ${xDtype}, ${m} rows`);
    }
  });
});

test('threads change no bit', async (t) => {
  const integers = randomIntegers(4);
  for (const isa of isas) {
    for (const [m, n] of [
      [1, 161],
      [20, 300],
      [200, 70],
    ] as const) {
      const p = problem({ m, k: 100, n, format: 'bfloat16', xDtype: 'bfloat16', chunkEdges: [0, 32, 64, 100] }, () => normal(integers));
      const one = linear(isa, p, 1).roots;
      for (const numThreads of [2, 3]) t.ok(sameBits(linear(isa, p, numThreads).roots, one), `${isa} ${m} rows, ${numThreads} threads`);
    }
  }
});

test('ranks change no bit', async (t) => {
  const integers = randomIntegers(5);
  eachCombination((isa, format, xDtype) => {
    const numChunks = 9;
    // Edges as in a model, and with odd and empty chunks.
    for (const edges of [Array.from({ length: numChunks + 1 }, (_, c) => c * 16), randomEdges(integers, 144, numChunks)]) {
      const whole = problem({ m: 3, k: 144, n: 40, format, xDtype, chunkEdges: edges }, () => normal(integers));
      const expected = linear(isa, whole).roots;
      for (const worldSize of [2, 3, 4, 9]) {
        t.ok(sameBits(joinRanks(isa, whole, worldSize), expected), `${isa} ${format} x ${xDtype} on ${worldSize} ranks, chunks ${edges}`);
      }
    }
  });
});

/** Each rank multiplies its own chunks; the roots of all ranks are then joined in rank order. */
function joinRanks(isa: string, whole: Problem, worldSize: number): Float32Array {
  const numChunks = whole.numChunks;
  const size = whole.m * whole.n;
  const roots: Float32Array[] = [];
  for (let rank = 0; rank < worldSize; rank++) {
    const first = Math.floor((rank * numChunks) / worldSize);
    const edges = whole.chunkEdges.slice(first, Math.floor(((rank + 1) * numChunks) / worldSize) + 1);
    const begin = edges[0] ?? 0;
    const k = (edges.at(-1) ?? 0) - begin;
    // A rank without columns contributes a zero root.
    const local = k === 0 ? { numRoots: 1, roots: new Float32Array(size) } : linear(isa, columns(whole, begin, k, edges, first));
    for (let r = 0; r < local.numRoots; r++) roots.push(local.roots.slice(r * size, (r + 1) * size));
  }
  const { join } = (native().testing.reductionTree as (options: object) => { join: number[] })({ numChunks, worldSize });
  const stack: Float32Array[] = [];
  roots.forEach((root, i) => {
    stack.push(root);
    for (let n = join[i] ?? 0; n > 0; n--) {
      const upper = stack.pop() ?? new Float32Array();
      const lower = stack.pop() ?? new Float32Array();
      stack.push(lower.map((value, j) => value + (upper[j] ?? Number.NaN)));
    }
  });
  return stack[0] ?? new Float32Array();
}

/** Columns [begin, begin + k) of x and w. */
function columns(p: Problem, begin: number, k: number, edges: readonly number[], firstChunk: number): Problem {
  const cut = (values: Float32Array, count: number): Float32Array =>
    Float32Array.from({ length: count * k }, (_, i) => values[Math.floor(i / k) * p.k + begin + (i % k)] ?? Number.NaN);
  return { ...p, k, x: cut(p.x, p.m), w: cut(p.w, p.n), chunkEdges: edges.map((edge) => edge - begin), firstChunk };
}

test('all but portable agree on all but bf16 dot products', async (t) => {
  const wide = isas.filter((isa) => isa !== 'portable');
  const integers = randomIntegers(6);
  for (const format of formats) {
    for (const xDtype of xDtypes) {
      const p = problem({ m: 6, k: 150, n: 50, format, xDtype, chunkEdges: [0, 31, 75, 150] }, () => normal(integers));
      const results = wide.filter((isa) => !isDot(isa, p)).map((isa) => linear(isa, p).roots);
      for (const result of results) t.ok(sameBits(result, results[0] ?? result), `${format} x ${xDtype}`);
    }
  }
});

test('tiles of AMX take denormals as zeros, read or computed', {
  skip: !isas.includes('amx') && 'needs a processor with AMX',
}, async (t) => {
  const integers = randomIntegers(8);
  const shape = { m: 20, k: 100, n: 40, format: 'bfloat16', xDtype: 'bfloat16', chunkEdges: [0, 64, 100] } as const;
  // Exponents around 2^-66 make products around the least normal number, 2^-126.
  const p = problem(shape, () => (integers(20) === 0 ? 2 ** -130 : 2 ** (integers(12) - 73) * normal(integers)));
  const { roots } = linear('amx', p);
  t.ok(sameBits(roots, referenceLinear(p, false, amxDot)));
  t.notOk(sameBits(roots, referenceLinear(p, false)), 'the problem tells the two orders apart');
  t.ok(roots.some((value) => value === 0) && roots.some((value) => value !== 0));
});

test('an infinite activation stays in its own chunk', async (t) => {
  for (const isa of isas) {
    const p = problem(
      { m: 2, k: 64, n: 32, format: 'bfloat16', xDtype: 'bfloat16', chunkEdges: [0, 31, 64], numChunks: 8, firstChunk: 3 },
      () => 1,
    );
    p.x.fill(Number.POSITIVE_INFINITY, 31, 64);
    const { numRoots, roots } = linear(isa, p);
    t.equal(numRoots, 2, 'chunks 3 and 4 of 8 have no common node but the root');
    t.equal(roots[0], 31, `${isa}: column 31 is the neighbour of an odd chunk`);
    t.equal(roots[p.m * p.n], Number.POSITIVE_INFINITY);
  }
});

test('more chunks than a matrix can have are refused', async (t) => {
  const p = problem(
    { m: 1, k: 300, n: 1, format: 'float32', xDtype: 'float32', chunkEdges: Array.from({ length: 301 }, (_, i) => i) },
    () => 1,
  );
  t.throws(() => linear('portable', p), { code: 'ERR_INTERNAL', message: /1 to 256 chunks/ });
});
