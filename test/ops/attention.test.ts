/** Paged attention: correct for every shape, and bit-identical for any arrangement of queries, blocks and threads. */
import { test } from 'tap';
import { randomIntegers } from '../helpers/random.ts';
import { at, cacheTypes, isas, maxDifference, type PagedAttention, rounders, sameBits, testing } from '../helpers/testing.ts';
import { attentionProblem, placeBlocks, referenceAttention, type Shape, someQueries } from '../references/attention.ts';

const attend = (isa: string, p: PagedAttention, numThreads = 1): Float32Array => testing.pagedAttention({ isa, numThreads, ...p });

/** Columns [0, width) of padded rows. */
function unpadded(p: PagedAttention, out: Float32Array): Float32Array {
  const width = p.numHeads * p.headDim;
  const ld = Math.ceil(width / 32) * 32;
  return Float32Array.from({ length: (out.length / ld) * width }, (_, i) => at(out, Math.floor(i / width) * ld + (i % width)));
}

const shapes: readonly Omit<Shape, 'dtype' | 'kvDtype'>[] = [
  { headDim: 64, numHeads: 4, groupSize: 2, lengths: [[1, 1]] },
  { headDim: 64, numHeads: 6, groupSize: 3, lengths: [[1, 130]] },
  { headDim: 128, numHeads: 4, groupSize: 2, lengths: [[70, 70]] },
  // Several kinds of sequences together: a prefill, decodes, a later chunk.
  {
    headDim: 32,
    numHeads: 5,
    groupSize: 1,
    lengths: [
      [40, 40],
      [1, 33],
      [1, 64],
      [9, 75],
      [1, 1],
    ],
  },
  { headDim: 8, numHeads: 3, groupSize: 3, lengths: [[37, 50]] },
  { headDim: 2, numHeads: 1, groupSize: 1, lengths: [[5, 40]] },
  { headDim: 80, numHeads: 2, groupSize: 2, lengths: [[13, 100]] },
  { headDim: 96, numHeads: 2, groupSize: 1, lengths: [[33, 65]] },
  { headDim: 256, numHeads: 3, groupSize: 3, lengths: [[7, 49]] },
  { headDim: 20, numHeads: 3, groupSize: 2, lengths: [[11, 43]] },
  { headDim: 26, numHeads: 2, groupSize: 1, lengths: [[3, 35]] },
  // More heads per group than fit one tile.
  { headDim: 16, numHeads: 30, groupSize: 30, lengths: [[4, 70]] },
  // A rank whose first and last heads are inside groups.
  { headDim: 16, numHeads: 4, groupSize: 3, firstHead: 2, lengths: [[20, 60]] },
  { headDim: 32, numHeads: 3, groupSize: 9, firstHead: 15, lengths: [[2, 40]] },
  { headDim: 32, numHeads: 2, groupSize: 2, slidingWindow: 1, lengths: [[40, 40]] },
  { headDim: 32, numHeads: 2, groupSize: 2, slidingWindow: 33, lengths: [[50, 140]] },
  {
    headDim: 48,
    numHeads: 2,
    groupSize: 1,
    slidingWindow: 64,
    blockSize: 64,
    lengths: [
      [1, 200],
      [70, 70],
    ],
  },
  { headDim: 64, numHeads: 2, groupSize: 2, spread: 30, lengths: [[30, 90]] },
];

test('attention is softmax(q Kᵀ) V over the keys that a query sees', async (t) => {
  const integers = randomIntegers(1);
  for (const cache of cacheTypes) {
    for (const shape of shapes) {
      const p = attentionProblem({ ...shape, ...cache }, integers);
      const expected = referenceAttention(p);
      for (const isa of isas) {
        const out = attend(isa, p);
        const difference = maxDifference(unpadded(p, out), expected);
        // bf16 has 8 significant bits: of probabilities, and of outputs of up to about 4.
        t.ok(
          difference < (cache.dtype === 'float32' ? 1e-5 * (shape.spread ?? 1) : 3e-2),
          `${isa} ${JSON.stringify({ ...cache, ...shape })}: off by ${difference}`,
        );
        const width = p.numHeads * p.headDim;
        const ld = Math.ceil(width / 32) * 32;
        t.ok(
          out.every((value, i) => i % ld < width || Object.is(value, 0)),
          'columns past the width are zero',
        );
      }
    }
  }
});

/** Random problems of one sequence with a few dozen new tokens. */
function* oneSequence(seed: number): Generator<{ isa: string; p: PagedAttention; name: string }> {
  const integers = randomIntegers(seed);
  for (const isa of isas) {
    for (const cache of cacheTypes) {
      for (const slidingWindow of [0, 45]) {
        const groupSize = 1 + integers(4);
        const headDim = [16, 40, 64, 128][integers(4)] ?? 16;
        const shape = { ...cache, headDim, numHeads: groupSize * 2, groupSize, slidingWindow, lengths: [[40, 40 + integers(80)] as const] };
        yield { isa, p: attentionProblem(shape, integers), name: `${isa} ${JSON.stringify(shape)}` };
      }
    }
  }
}

test('a query is the same alone, in any chunk and among other sequences', async (t) => {
  const integers = randomIntegers(2);
  for (const { isa, p, name } of oneSequence(3)) {
    const whole = attend(isa, p);
    const ld = whole.length / 40;
    const part = (begin: number, end: number): Float32Array => whole.slice(begin * ld, end * ld);
    for (const query of [0, 1, 17, 31, 32, 39]) {
      t.ok(sameBits(attend(isa, someQueries(p, query, query + 1)), part(query, query + 1)), `${name}: query ${query} alone`);
    }
    const cut = 1 + integers(39);
    t.ok(sameBits(attend(isa, someQueries(p, 0, cut)), part(0, cut)), `${name}: first ${cut}`);
    t.ok(sameBits(attend(isa, someQueries(p, cut, 40)), part(cut, 40)), `${name}: from ${cut} on`);
    t.ok(sameBits(attend(isa, beside(p, integers)).slice(-whole.length), whole), `${name}: behind another sequence`);
  }
});

/** The same sequence after another one's decode, whose keys are the last ones of `p`. */
function beside(p: PagedAttention, integers: (below: number) => number): PagedAttention {
  const width = p.numHeads * p.headDim;
  const kvWidth = p.numKvHeads * p.headDim;
  const otherLen = 1 + integers(at(p.contextLens, 0) - 1);
  const contextLens = Int32Array.of(otherLen, at(p.contextLens, 0));
  return {
    ...p,
    q: Float32Array.of(...p.q.slice(-width), ...p.q),
    k: Float32Array.of(...p.k.slice(-otherLen * kvWidth), ...p.k),
    v: Float32Array.of(...p.v.slice(-otherLen * kvWidth), ...p.v),
    cuQueryLens: Int32Array.of(0, 1, 1 + at(p.cuQueryLens, 1)),
    contextLens,
    ...placeBlocks(contextLens, p.blockSize, integers),
  };
}

test('threads, block size, block order and stale cache change no bit', async (t) => {
  const integers = randomIntegers(4);
  for (const { isa, p, name } of oneSequence(5)) {
    const expected = attend(isa, p);
    for (const numThreads of [2, 3]) t.ok(sameBits(attend(isa, p, numThreads), expected), `${name}: ${numThreads} threads`);
    for (const blockSize of [32, 64, 96]) {
      const moved = { ...p, ...placeBlocks(p.contextLens, blockSize, integers) };
      t.ok(sameBits(attend(isa, moved, 1 + integers(3)), expected), `${name}: blocks of ${blockSize}`);
    }
    for (const stale of [0, -3e38, 3e38]) t.ok(sameBits(attend(isa, { ...p, stale }), expected), `${name}: stale ${stale}`);
  }
});

/** Heads [begin, end) of a problem with all heads, as on the rank that owns them. */
function someHeads(p: PagedAttention, begin: number, end: number): PagedAttention {
  const firstKvHead = Math.floor(begin / p.groupSize);
  const numKvHeads = Math.floor((end - 1) / p.groupSize) - firstKvHead + 1;
  const columns = (rows: Float32Array, numHeads: number, first: number, count: number): Float32Array =>
    rows.filter((_, i) => {
      const head = Math.floor(i / p.headDim) % numHeads;
      return head >= first && head < first + count;
    });
  return {
    ...p,
    q: columns(p.q, p.numHeads, begin, end - begin),
    k: columns(p.k, p.numKvHeads, firstKvHead, numKvHeads),
    v: columns(p.v, p.numKvHeads, firstKvHead, numKvHeads),
    firstHead: begin,
    numHeads: end - begin,
    firstKvHead,
    numKvHeads,
  };
}

test('heads are the same on any number of ranks, also where a border cuts a group', async (t) => {
  const integers = randomIntegers(8);
  const lengths = [
    [19, 83],
    [1, 70],
  ] as const;
  for (const isa of isas) {
    for (const cache of cacheTypes) {
      for (const headDim of [8, 20, 64, 80]) {
        const p = attentionProblem({ ...cache, headDim, numHeads: 9, groupSize: 3, lengths }, integers);
        const whole = unpadded(p, attend(isa, p));
        for (const numRanks of [2, 4]) {
          for (let rank = 0; rank < numRanks; rank++) {
            const begin = Math.floor((rank * p.numHeads) / numRanks);
            const end = Math.floor(((rank + 1) * p.numHeads) / numRanks);
            const part = someHeads(p, begin, end);
            const expected = whole.filter((_, i) => {
              const head = Math.floor(i / headDim) % p.numHeads;
              return head >= begin && head < end;
            });
            t.ok(
              sameBits(unpadded(part, attend(isa, part)), expected),
              `${isa} ${JSON.stringify(cache)} heads of ${headDim}: [${begin}, ${end})`,
            );
          }
        }
      }
    }
  }
});

test('blocks wholly before a sliding window are not read', async (t) => {
  const integers = randomIntegers(6);
  for (const isa of isas) {
    for (const cache of cacheTypes) {
      const shape: Shape = { ...cache, headDim: 32, numHeads: 2, groupSize: 2, slidingWindow: 40, lengths: [[3, 150]] };
      const p = attentionProblem(shape, integers);
      // The window starts at key 150 - 3 - 40 + 1 = 108, so blocks 0, 1 and 2 are not read.
      const freed = { ...p, blockTables: p.blockTables.map((block, i) => (i < 3 ? -1 : block)) };
      t.ok(sameBits(attend(isa, freed), attend(isa, p)), `${isa} ${JSON.stringify(cache)}`);
    }
  }
});

test('all but portable give the same bits in fp32', async (t) => {
  const integers = randomIntegers(7);
  const withFma = isas.filter((isa) => isa !== 'portable');
  const kvDtypes = ['float32', 'bfloat16', 'int8'] as const;
  const problems = shapes.flatMap((shape) => kvDtypes.map((kvDtype) => ({ ...shape, dtype: 'float32', kvDtype }) as const));
  for (const shape of problems) {
    const p = attentionProblem(shape, integers);
    const [first = 'portable', ...others] = withFma;
    const expected = attend(first, p);
    for (const isa of others) t.ok(sameBits(attend(isa, p), expected), `${isa} ${JSON.stringify(shape)}`);
  }
});

test('bf16 beside fp32 rows gives the bits of an fp32 cache of the rounded values', async (t) => {
  const integers = randomIntegers(9);
  for (const shape of shapes) {
    const p = attentionProblem({ ...shape, dtype: 'float32', kvDtype: 'bfloat16' }, integers);
    const rounded = { ...p, kvDtype: 'float32', k: p.k.map(rounders.bfloat16), v: p.v.map(rounders.bfloat16) } as const;
    for (const isa of isas) {
      t.ok(sameBits(attend(isa, p), attend(isa, rounded)), `${isa} ${JSON.stringify(shape)}`);
      t.notOk(sameBits(attend(isa, p), attend(isa, { ...p, kvDtype: 'float32' })), `${isa}: something was rounded`);
    }
  }
});
