/** Products with the 8-bit floats of a checkpoint as they are: the bits of a product with the bf16 matrix of their values. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { planFp8 } from '../../rank/model/kept-codes.ts';
import { native } from '../../rank/native.ts';
import type { TensorSlice } from '../../rank/program-spec.ts';
import { randomIntegers } from '../helpers/random.ts';
import { isas, sameBits } from '../helpers/testing.ts';
import { e4m3, toBf16 } from '../references/fp8.ts';
import { normal, roundTo } from '../references/linear.ts';

interface Packed {
  readonly roots: Float32Array;
}
const linear = (options: object) => (native().testing.linear as (options: object) => Packed)({ numThreads: 2, bias: null, ...options });

/** Rows and columns that share a scale; what `planFp8` and the files of the test say of them. */
interface Matrix {
  readonly numRows: number;
  readonly numCols: number;
  readonly rowsPerScale: number;
  readonly colsPerScale: number;
  readonly codes: Uint8Array;
  readonly scales: Float32Array;
}

const isNumber = (code: number) => (code & 127) !== 127;

/** A matrix with every code that is a number, and scales of either sign that round most values. */
function matrixOf(numRows: number, numCols: number, rowsPerScale: number, colsPerScale: number): Matrix {
  const draw = randomIntegers(numRows * numCols);
  const codes = Uint8Array.from({ length: numRows * numCols }, (_, i) => {
    const code = i < 256 ? i : draw(256);
    return isNumber(code) ? code : 0;
  });
  const numScales = Math.ceil(numRows / rowsPerScale) * Math.ceil(numCols / colsPerScale);
  const scales = Float32Array.from({ length: numScales }, (_, i) => (i === 1 ? 0 : normal(draw) * 2 ** (draw(20) - 16)));
  return { numRows, numCols, rowsPerScale, colsPerScale, codes, scales };
}

/** The value of each element as bf16, by its definition. */
function bf16Of({ numCols, rowsPerScale, colsPerScale, codes, scales }: Matrix, row: number, col: number): number {
  const scale = scales[Math.floor(row / rowsPerScale) * Math.ceil(numCols / colsPerScale) + Math.floor(col / colsPerScale)] as number;
  return toBf16(Math.fround(e4m3(codes[row * numCols + col] as number) * scale));
}

type Range = readonly [begin: number, end: number];

interface Case {
  readonly matrix: Matrix;
  /** Edges of the chunks of all columns, and the chunks of this rank. */
  readonly edges: readonly number[];
  readonly chunks: Range;
  readonly rows?: Range;
  readonly m: number;
}

/** The product of a part of a matrix as it is stored, and of the bf16 values of that part. */
function products(t: Test, { matrix, edges, chunks, rows = [0, matrix.numRows], m }: Case) {
  const path = join(t.testdir({}), 'w');
  writeFileSync(path, Buffer.concat([matrix.codes, Buffer.from(matrix.scales.buffer)]));
  const { numCols, rowsPerScale, colsPerScale } = matrix;
  const [colBegin, colEnd] = [edges[chunks[0]] as number, edges[chunks[1]] as number];
  const fp8 = { file: 0, byteOffset: matrix.codes.length, dtype: 'float32', rowsPerScale, colsPerScale } as const;
  const place = { name: 'w', file: 0, byteOffset: 0, dtype: 'bfloat16', integers: null, numCols } as const;
  const slice: TensorSlice = { ...place, fp8, rowBegin: rows[0], rowEnd: rows[1], colBegin, colEnd };
  const [n, k, numChunks] = [rows[1] - rows[0], colEnd - colBegin, chunks[1] - chunks[0]];
  const draw = randomIntegers(n + k + m);
  const values = Float32Array.from({ length: n * k }, (_, i) => bf16Of(matrix, rows[0] + Math.floor(i / k), colBegin + (i % k)));
  const x = Float32Array.from({ length: m * k }, () => roundTo('bfloat16', normal(draw)));
  const chunkEdges = edges.slice(chunks[0], chunks[1] + 1).map((edge) => edge - colBegin);
  const common = { m, k, n, x, chunkEdges, firstChunk: 0, numChunks };
  return (isa: string, xDtype: 'float32' | 'bfloat16') => ({
    kept: linear({ ...common, isa, xDtype, format: 'fp8', files: [path], slice }).roots,
    expanded: linear({ ...common, isa, xDtype, format: 'bfloat16', w: values }).roots,
  });
}

/** Rows of a product: of one tile and of several, of one and two blocks of AMX, for panels one by one and in groups. */
const rowCounts = [1, 2, 3, 7, 12, 13, 33, 100] as const;

const shapes: Record<string, Omit<Case, 'm'>> = {
  'one scale': { matrix: matrixOf(64, 96, 64, 96), edges: [0, 96], chunks: [0, 1] },
  'a scale for each row, ragged chunks': { matrix: matrixOf(45, 91, 1, 91), edges: [0, 32, 64, 91], chunks: [0, 3] },
  'blocks that end inside chunks': { matrix: matrixOf(70, 300, 128, 128), edges: [0, 40, 100, 204, 204, 300], chunks: [0, 5] },
  'a rank that begins inside a block': {
    matrix: matrixOf(150, 300, 64, 64),
    edges: [0, 40, 100, 204, 300],
    chunks: [1, 4],
    rows: [37, 111],
  },
  'narrow blocks': { matrix: matrixOf(33, 64, 3, 4), edges: [0, 20, 64], chunks: [0, 2] },
};

test('products have the bits of those with the values in bf16', async (t) => {
  for (const [name, shape] of Object.entries(shapes)) {
    for (const m of rowCounts) {
      const product = products(t, { ...shape, m });
      for (const isa of isas) {
        for (const xDtype of ['float32', 'bfloat16'] as const) {
          const { kept, expanded } = product(isa, xDtype);
          if (!expanded.some((value) => value !== 0)) t.fail('products of zeros show nothing');
          t.ok(sameBits(kept, expanded), `${isa}, x ${xDtype}, ${name}, ${m} rows`);
        }
      }
    }
  }
});

test('a code that is no number makes its row none, as in bf16', async (t) => {
  for (const nan of [0x7f, 0xff]) {
    const matrix = matrixOf(40, 64, 40, 64);
    matrix.codes[3 * 64 + 33] = nan;
    for (const m of [1, 20]) {
      const product = products(t, { matrix, edges: [0, 32, 64], chunks: [0, 2], m });
      for (const isa of isas) {
        for (const { kept, expanded } of [product(isa, 'float32'), product(isa, 'bfloat16')]) {
          t.same([...kept].map(Number.isNaN), [...expanded].map(Number.isNaN), isa);
          t.equal(kept.filter(Number.isNaN).length, m, `${isa}: one output of each row`);
          t.same(
            kept.filter((value) => !Number.isNaN(value)),
            expanded.filter((value) => !Number.isNaN(value)),
            isa,
          );
        }
      }
    }
  }
});

test('scales beyond the range in which no value is denormal or infinite are refused', async (t) => {
  for (const [scale, isHeld] of [
    [2 ** -100, true],
    [2 ** -101, false],
    [-128, true],
    [129, false],
    [Number.POSITIVE_INFINITY, false],
    [Number.NaN, true],
  ] as const) {
    const matrix = { ...matrixOf(4, 32, 4, 32), scales: Float32Array.of(scale) };
    const product = () => products(t, { matrix, edges: [0, 32], chunks: [0, 1], m: 1 })('portable', 'float32');
    if (!isHeld) {
      t.throws(product, { code: 'ERR_INTERNAL', message: /weights that fit their format/ }, String(scale));
      continue;
    }
    const { kept, expanded } = product();
    t.same(kept, expanded, String(scale));
  }
});

test('which matrices stay in eight bits', async (t) => {
  const whole = { edges: [0, 64, 128, 192, 256], begin: 0, all: null, first: 0 };
  const ranks = { edges: [0, 20, 40], begin: 40, all: [0, 20, 40, 60, 80], first: 2 };
  const fp8 = { format: 'fp8' };
  t.same(planFp8([{ colsPerScale: 128 }, { colsPerScale: 128 }], whole), fp8);
  t.same(planFp8([{ colsPerScale: 256 }, { colsPerScale: 128 }], whole), fp8, 'one scale for all inputs beside blocks');
  t.same(planFp8([{ colsPerScale: 16 }], ranks), fp8);
  t.match(planFp8([{ colsPerScale: 128 }, null], whole), { reason: /not stored as 8-bit floats/ });
  t.match(planFp8([{ colsPerScale: 128 }, { colsPerScale: 48 }], whole), { reason: /cover other inputs/ });
  t.match(planFp8([{ colsPerScale: 6 }], { ...ranks, edges: [0, 20], first: 0, begin: 0 }), { reason: /multiples of four/ });
});
