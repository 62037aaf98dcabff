/**
 * Products with the integers of a checkpoint as they are: planned, read, packed and multiplied, against the definition of
 * each layout and the documented order of sums.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { type Test, test } from 'tap';
import { type CodesPlan, planCodes } from '../../rank/model/kept-codes.ts';
import { inputChunkEdges } from '../../rank/model/partition.ts';
import { native } from '../../rank/native.ts';
import { type Matrix, matrices, type Part, shuffled, sliceOf, writeMatrix } from '../helpers/integer-matrices.ts';
import { randomIntegers } from '../helpers/random.ts';
import { isas, sameBits } from '../helpers/testing.ts';
import { integerParts } from '../references/integers.ts';
import { fma, normal, referenceLinear, roundTo } from '../references/linear.ts';
import { quantizeActivations } from '../references/quantized.ts';

interface Packed {
  readonly roots: Float32Array;
}
const linear = (options: object) => (native().testing.linear as (options: object) => Packed)({ numThreads: 2, bias: null, ...options });

/** How the columns of a matrix are summed: by chunks of all, or by chunks that ranks divide. */
interface Cut {
  readonly isDivided: boolean;
  readonly edges: readonly number[];
}

const roundTwice = (isa: string) => isa === 'portable';
const folderOf = (t: Test) => t.testdir({});

/** Columns of a chunk in the order of their groups, cut where a group ends and after `size` of them. */
function runsOf(groups: readonly number[], { isDivided, edges }: Cut, chunk: number, size: number): number[][] {
  const [begin, end] = [edges[chunk] as number, edges[chunk + 1] as number];
  const byGroup = (columns: number[]) => columns.sort((a, b) => (groups[a] as number) - (groups[b] as number) || a - b);
  const all = [...groups.keys()];
  const columns = isDivided ? byGroup(all.slice(begin, end)) : byGroup(all).slice(begin, end);
  const runs: number[][] = [];
  for (const column of columns) {
    const last = runs.at(-1);
    if (last !== undefined && last.length < size && groups[last[0] as number] === groups[column]) last.push(column);
    else runs.push([column]);
  }
  return runs;
}

interface Case {
  readonly matrix: Matrix;
  /** Other bytes for parts of the matrix. */
  readonly parts?: Partial<Record<Part, Buffer>>;
  readonly cut: Cut;
  /** Chunks of this rank. */
  readonly chunks: readonly [begin: number, end: number];
  readonly m: number;
  /** All activations; normal ones without. */
  readonly activation?: number;
}

/** What native and the reference compute with one share of a matrix. @param change - to another plan, for native alone */
function compute(
  folder: string,
  { matrix, cut, chunks, m, parts, activation }: Case,
  change: (plan: CodesPlan) => CodesPlan = (plan) => plan,
) {
  const { files, contents, integers } = writeMatrix(folder, 'w', matrix, parts);
  const [colBegin, colEnd] = [cut.edges[chunks[0]] as number, cut.edges[chunks[1]] as number];
  const slice = sliceOf(integers, matrix.numCols, { rowBegin: 0, rowEnd: matrix.numRows, colBegin, colEnd });
  const groups = Array.from({ length: matrix.numCols }, (_, col) => integerParts(contents, slice, integers, 0, col).group);
  const planned = { ...integers, groups: matrix.order === undefined ? null : Int32Array.from(groups) };
  const edges = cut.edges.slice(chunks[0], chunks[1] + 1).map((edge) => edge - colBegin);
  const columns = { edges, begin: colBegin, all: cut.isDivided ? cut.edges : null, first: chunks[0] };
  const plan = planCodes([planned], columns);
  if ('reason' in plan) return { plan };
  const draw = randomIntegers(matrix.numCols + m);
  const k = colEnd - colBegin;
  const n = matrix.numRows;
  const numLocal = chunks[1] - chunks[0];
  const partsOf = Array.from({ length: n }, (_, row) =>
    Array.from({ length: matrix.numCols }, (_, col) => integerParts(contents, slice, integers, row, col)),
  );
  const inputs = (xDtype: 'float32' | 'bfloat16') =>
    Float32Array.from({ length: m * k }, () => roundTo(xDtype, activation ?? normal(draw)));
  const x = { float32: inputs('float32'), bfloat16: inputs('bfloat16') };
  const run = (isa: string, xDtype: 'float32' | 'bfloat16') => {
    const { format, codes, chunkEdges } = change(plan);
    return linear({ isa, m, k, n, format, codes, chunkEdges, files, slice, xDtype, x: x[xDtype], firstChunk: 0, numChunks: numLocal })
      .roots;
  };
  const expected = (isa: string, xDtype: 'float32' | 'bfloat16') => {
    const problem = {
      m,
      k,
      n,
      format: 'float32',
      xDtype,
      x: x[xDtype],
      bias: null,
      chunkEdges: edges,
      firstChunk: 0,
      numChunks: numLocal,
    } as const;
    return referenceLinear(problem, roundTwice(isa), undefined, (i, j, chunk) => {
      let sum = 0;
      for (const run of runsOf(groups, cut, chunks[0] + chunk, plan.codes.group)) {
        const activations = quantizeActivations(Float32Array.from(run, (column) => problem.x[i * k + column - colBegin] as number));
        const weights = run.map((column) => partsOf[j]?.[column] as ReturnType<typeof integerParts>);
        const dot = weights.reduce((total, { code }, l) => total + code * (activations.q[l] as number), 0);
        const scale = Math.fround((activations.scale / 256) * ((weights[0]?.scale as number) * 256));
        sum = roundTwice(isa) ? Math.fround(Math.fround(dot * scale) + sum) : fma(dot, scale, sum);
      }
      return sum;
    });
  };
  return { plan, run, expected, files };
}

const columnCut = ({ numCols }: Matrix): Cut => ({ isDivided: false, edges: inputChunkEdges(numCols) });
/** Chunks of four panels' parts, of which most do not end where groups do. */
const rowCut = ({ numCols }: Matrix, size = 40): Cut => {
  const numChunks = Math.max(1, Math.floor(numCols / size));
  return { isDivided: true, edges: [...Array.from({ length: numChunks }, (_, i) => i * size), numCols] };
};

/** Formats and sizes of groups that the cases should come to. */
const plans: Record<string, { readonly format: CodesPlan['format']; readonly whole: number }> = {
  'compressed int4': { format: 'int4', whole: 32 },
  'compressed int4 with zero points': { format: 'int4_zero', whole: 64 },
  'compressed int4 with an order': { format: 'int4_zero', whole: 32 },
  int8: { format: 'int8', whole: 128 },
  'compressed int8 in words': { format: 'int8_zero', whole: 128 },
  'int8 in groups with zero points': { format: 'int8_zero', whole: 64 },
  'GPTQ of 8 bits': { format: 'int8_zero', whole: 32 },
  'GPTQ of 8 bits with an order': { format: 'int8_zero', whole: 32 },
  'int8 with zero points, fp32 scales': { format: 'int8_zero', whole: 128 },
  'bytes around another middle': { format: 'int8_zero', whole: 128 },
  AWQ: { format: 'int4_zero', whole: 32 },
  'AWQ without zero points': { format: 'int4', whole: 128 },
  'int4 in groups of 64': { format: 'int4', whole: 64 },
  'AWQ in groups of 128': { format: 'int4_zero', whole: 128 },
  'int4 in groups of 128': { format: 'int4', whole: 128 },
  GPTQ: { format: 'int4_zero', whole: 32 },
  'GPTQ v2 with an order': { format: 'int4_zero', whole: 32 },
  'int8 in groups of 64': { format: 'int8', whole: 64 },
  'int8 in words': { format: 'int8', whole: 32 },
  'int8 by channel in words, fp32 scales': { format: 'int8', whole: 128 },
  'GPTQ of 8 bits, symmetric': { format: 'int8', whole: 32 },
  'int4 with fp32 scales': { format: 'int4', whole: 32 },
  'groups of 128': { format: 'int4_zero', whole: 32 },
};
const more: Record<string, Matrix> = {
  'AWQ in groups of 128': { layout: 'awq', bits: 4, numRows: 104, numCols: 1024, groupSize: 128, hasZeros: true, zeroOffset: 0 },
  'int4 in groups of 64': { layout: 'gptq', bits: 4, numRows: 40, numCols: 512, groupSize: 64, hasZeros: false, zeroOffset: 8 },
  'int4 in groups of 128': { layout: 'rows', bits: 4, numRows: 69, numCols: 1024, groupSize: 128, hasZeros: false, zeroOffset: 8 },
  'int8 in groups of 64': { layout: 'bytes', bits: 8, numRows: 21, numCols: 512, groupSize: 64, hasZeros: false, zeroOffset: 0 },
  'int8 in words': { layout: 'rows', bits: 8, numRows: 33, numCols: 300, groupSize: 128, hasZeros: false, zeroOffset: 128 },
  'int8 by channel in words, fp32 scales': {
    layout: 'rows',
    bits: 8,
    numRows: 33,
    numCols: 300,
    groupSize: 300,
    hasZeros: false,
    zeroOffset: 128,
    scaleDtype: 'float32',
  },
  'GPTQ of 8 bits, symmetric': { layout: 'gptq', bits: 8, numRows: 36, numCols: 160, groupSize: 32, hasZeros: false, zeroOffset: 128 },
  'GPTQ of 8 bits with an order': {
    layout: 'gptq',
    bits: 8,
    numRows: 36,
    numCols: 144,
    groupSize: 48,
    hasZeros: true,
    zeroOffset: 0,
    order: shuffled(144, 3),
  },
  'int8 with zero points, fp32 scales': {
    layout: 'bytes',
    bits: 8,
    numRows: 70,
    numCols: 512,
    groupSize: 128,
    hasZeros: true,
    zeroOffset: 0,
    scaleDtype: 'float32',
  },
  'bytes around another middle': { layout: 'bytes', bits: 8, numRows: 21, numCols: 256, groupSize: 256, hasZeros: false, zeroOffset: 5 },
  'int4 with fp32 scales': {
    layout: 'rows',
    bits: 4,
    numRows: 50,
    numCols: 96,
    groupSize: 32,
    hasZeros: false,
    zeroOffset: 8,
    scaleDtype: 'float32',
  },
  'groups of 128': { layout: 'awq', bits: 4, numRows: 64, numCols: 384, groupSize: 128, hasZeros: true, zeroOffset: 0 },
};
const matrixOf = (name: string) => ({ ...matrices, ...more })[name] as Matrix;

test('sums of every layout have the bits of the definition', async (t) => {
  for (const [name, { format, whole }] of Object.entries(plans)) {
    const matrix = matrixOf(name);
    for (const cut of [columnCut(matrix), rowCut(matrix), rowCut(matrix, 64)]) {
      const numChunks = cut.edges.length - 1;
      const shares =
        cut.isDivided && numChunks > 1
          ? ([
              [0, numChunks],
              [1, numChunks],
            ] as const)
          : ([[0, numChunks]] as const);
      for (const chunks of shares) {
        const what = `${name}, chunks ${chunks} of ${cut.edges}`;
        const { plan, run, expected } = compute(folderOf(t), { matrix, cut, chunks, m: cut.isDivided ? 3 : 9 });
        if (run === undefined) {
          t.ok(cut.isDivided && matrix.order !== undefined, `${what}: ${JSON.stringify(plan)}`);
          continue;
        }
        t.equal(plan.format, format, what);
        if (!cut.isDivided) t.equal(plan.codes.group, whole, what);
        for (const isa of isas)
          for (const xDtype of ['float32', 'bfloat16'] as const)
            t.ok(sameBits(run(isa, xDtype), expected(isa, xDtype)), `${isa} ${xDtype} ${what}`);
      }
    }
  }
});

test('any number of rows has the bits of the definition, with one, two and three tiles of a group too', async (t) => {
  const shape = { layout: 'bytes', bits: 8, numRows: 34, numCols: 333, groupSize: 128, hasZeros: false, zeroOffset: 0 } as const;
  const cases: Record<string, Matrix> = {
    int8: shape,
    int8_zero: { ...shape, hasZeros: true },
    int4: { ...shape, layout: 'rows', bits: 4, zeroOffset: 8 },
    int4_zero: { ...shape, layout: 'rows', bits: 4, hasZeros: true },
  };
  const cut: Cut = { isDivided: true, edges: [0, 96, 128, 192, 256, 333] };
  for (const [format, matrix] of Object.entries(cases)) {
    for (const m of [1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 40]) {
      const { plan, run, expected } = compute(folderOf(t), { matrix, cut, chunks: [0, 5], m });
      t.match(plan, { format, codes: { group: 128 } });
      const [once, twice] = [expected?.(isas[0] as string, 'float32'), expected?.('portable', 'float32')] as Float32Array[];
      for (const isa of isas) {
        const reference = (isa === 'portable' ? twice : once) as Float32Array;
        t.ok(sameBits(run?.(isa, 'float32') as Float32Array, reference), `${isa} ${format}, ${m} rows`);
      }
    }
  }
});

test('a share of the chunks is planned as the whole is', async (t) => {
  const matrix = matrixOf('GPTQ v2 with an order');
  const cut: Cut = { isDivided: true, edges: [0, 4, 48, 96, 144] };
  const plan = (chunks: readonly [number, number]) => compute(folderOf(t), { matrix, cut, chunks, m: 1 }).plan;
  const whole = plan([0, 4]);
  for (const chunks of [
    [0, 1],
    [1, 2],
    [2, 4],
  ] as const)
    t.equal('reason' in plan(chunks), 'reason' in whole, `chunks ${chunks}`);
});

test('scales at the ends of their types are held exactly, and others refused', async (t) => {
  const matrix: Matrix = { layout: 'rows', bits: 4, numRows: 64, numCols: 1024, groupSize: 32, hasZeros: false, zeroOffset: 8 };
  const cut = columnCut(matrix);
  const computed = (scaleDtype: 'float16' | 'bfloat16', bits: (i: number) => number) => {
    const scales = Buffer.from(Uint16Array.from({ length: 2048 }, (_, i) => bits(i)).buffer);
    return compute(folderOf(t), { matrix: { ...matrix, scaleDtype }, parts: { scales }, cut, chunks: [0, cut.edges.length - 1], m: 1 });
  };
  // fp16 from the least denormal to below 256, bf16 from 2^-25 to 255, both signs.
  for (const [dtype, first, last] of [
    ['float16', 0x0001, 0x5bff],
    ['bfloat16', 0x3300, 0x437f],
  ] as const) {
    const bits = (i: number) => (i % 2) * 0x8000 + (i === 0 ? first : i === 2047 ? last : first + Math.floor(((last - first) * i) / 2047));
    const { run, expected } = computed(dtype, bits);
    for (const isa of isas)
      t.ok(sameBits(run?.(isa, 'float32') as Float32Array, expected?.(isa, 'float32') as Float32Array), `${isa} ${dtype}`);
    for (const wrong of dtype === 'float16' ? [0x5c00] : [0x3281, 0x4380]) {
      const { run } = computed(dtype, (i) => (i === 77 ? wrong : first + 100));
      t.throws(() => run?.(isas[0] as string, 'float32'), /fit their format/, `${dtype} ${wrong}`);
    }
  }
});

test('dots of the largest codes, zero points and activations are exact', async (t) => {
  const bytes = { layout: 'bytes', bits: 8, numRows: 40, numCols: 1024, groupSize: 128, hasZeros: true, zeroOffset: 0 } as const;
  // GPTQ's zero points of 255 + 1 are the largest.
  const gptq = { ...bytes, layout: 'gptq', zeroOffset: 1 } as const;
  const filled = (value: number) => Buffer.alloc(40 * 1024, value);
  const cases: Record<string, readonly [Matrix, code: number, zero: number, difference: number]> = {
    'bytes of 127, zero points of -128': [bytes, 0x7f, 0x80, 255],
    'bytes of -128, zero points of 127': [bytes, 0x80, 0x7f, -255],
    'codes of 255, zero points of 1': [gptq, 255, 0, 254],
    'codes of 0, zero points of 256': [gptq, 0, 255, -256],
  };
  for (const [what, [matrix, code, zero, difference]] of Object.entries(cases)) {
    const cut = columnCut(matrix);
    for (const activation of [-1.5, 1.5]) {
      const parts = { integers: filled(code), zeros: filled(zero).subarray(0, 40 * 8) };
      const chunks = [0, cut.edges.length - 1] as const;
      const { run, expected } = compute(folderOf(t), { matrix, parts, activation, cut, chunks, m: 5 });
      for (const isa of isas) {
        const actual = run?.(isa, 'float32') as Float32Array;
        t.ok(sameBits(actual, expected?.(isa, 'float32') as Float32Array), `${isa}, ${what}, activations of ${activation}`);
        t.equal(Math.sign(actual[0] as number), Math.sign(activation * difference), what);
      }
    }
  }
});

test('wrong zero points, nibbles, groups and orders are found', async (t) => {
  const isa = isas[0] as string;
  const wrong = (name: string, cut: (matrix: Matrix) => Cut, change: (plan: CodesPlan) => CodesPlan) => {
    const matrix = matrixOf(name);
    const whole = cut(matrix);
    const { run, expected } = compute(folderOf(t), { matrix, cut: whole, chunks: [0, whole.edges.length - 1], m: 2 }, change);
    return () => sameBits(run?.(isa, 'float32') as Float32Array, expected?.(isa, 'float32') as Float32Array);
  };
  const swapped = (plan: CodesPlan): CodesPlan => {
    const columns = [...(plan.codes.columns ?? [])];
    [columns[0], columns[1]] = [columns[1] as number, columns[0] as number];
    return { ...plan, codes: { ...plan.codes, columns } };
  };
  t.ok(wrong('GPTQ v2 with an order', columnCut, swapped)(), 'the order of columns inside a group changes nothing');
  const dropped = (plan: CodesPlan): CodesPlan => ({ ...plan, codes: { ...plan.codes, columns: plan.codes.columns?.with(0, -1) ?? null } });
  t.notOk(wrong('GPTQ v2 with an order', columnCut, dropped)(), 'a column left out');
  t.throws(
    wrong('GPTQ', columnCut, (plan) => ({ ...plan, format: 'int4' })),
    /fit their format/,
    'zero points that a format has not',
  );
  t.throws(
    wrong('GPTQ of 8 bits', columnCut, (plan) => ({ ...plan, format: 'int8' })),
    /fit their format/,
    'zero points that a format of 8 bits has not',
  );
  t.throws(
    wrong('groups of 128', columnCut, (plan) => ({ ...plan, format: 'int8', codes: { ...plan.codes, group: 128 } })),
    /fit their format/,
  );
  t.throws(
    wrong('int8 in groups of 64', columnCut, (plan) => ({ ...plan, codes: { ...plan.codes, group: 128 } })),
    /fit their format/,
    'two scales',
  );
  t.throws(
    wrong('int4 with fp32 scales', columnCut, (plan) => ({ ...plan, codes: { ...plan.codes, scaleDtype: 'float16' } })),
    /fit their format/,
  );
  // The bytes themselves: a nibble, a scale and a zero point that are one more or less.
  for (const name of ['AWQ', 'GPTQ of 8 bits', 'int8 in groups with zero points']) {
    for (const [file, part] of ['a code', 'a scale', 'a zero point'].entries()) {
      const matrix = matrixOf(name);
      const cut = columnCut(matrix);
      const { run, expected, files } = compute(folderOf(t), { matrix, cut, chunks: [0, cut.edges.length - 1], m: 1 });
      const path = files?.[file] as string;
      const bytes = readFileSync(path);
      bytes[3] = (bytes[3] as number) ^ 1;
      writeFileSync(path, bytes);
      const [actual, right] = [run?.(isa, 'float32') as Float32Array, expected?.(isa, 'float32') as Float32Array];
      const columns = [...actual.keys()].filter((j) => actual[j] !== right[j]);
      t.same(columns, [0], `${name}: ${part} of output 0`);
    }
  }
});
