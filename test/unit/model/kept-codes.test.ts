/** Plans for matrices that keep their integers: formats, groups, orders of columns, and what is expanded. */
import { test } from 'tap';
import { buildProgram, keptOn, readModel } from '../../../rank/model/index.ts';
import { type CutColumns, type PlannedIntegers, planCodes } from '../../../rank/model/kept-codes.ts';
import { inputChunkEdges } from '../../../rank/model/partition.ts';
import { goldenPath } from '../../helpers/goldens.ts';

const int4: PlannedIntegers = {
  bits: 4,
  layout: 'gptq',
  groupSize: 128,
  groups: null,
  scales: { dtype: 'float16' },
  zeros: null,
  zeroOffset: 8,
};
const withZeros: PlannedIntegers = { ...int4, zeros: {} };
const int8: PlannedIntegers = { ...int4, bits: 8, layout: 'bytes', groupSize: 4096, zeroOffset: 0 };
const int8WithZeros: PlannedIntegers = { ...int8, zeros: {} };
const whole = (k: number): CutColumns => ({ edges: inputChunkEdges(k), begin: 0, all: null, first: 0 });
const range = (count: number) => Array.from({ length: count }, (_, i) => i);
/** All chunks of `length` columns, on one rank. */
const chunks = (length: number, count: number): CutColumns => {
  const edges = range(count + 1).map((i) => i * length);
  return { edges, begin: 0, all: edges, first: 0 };
};
const inOrder = (group: number, scaleDtype = 'float16') => ({ group, scaleDtype, columns: null });

test('formats, groups and scales', async (t) => {
  t.match(planCodes([int4, int4], whole(4096)), { format: 'int4', codes: inOrder(128), chunkEdges: [0, 1024, 2048, 3072, 4096] });
  t.match(planCodes([{ ...int4, groupSize: 32 }], whole(4096)), { format: 'int4', codes: inOrder(32) });
  t.match(planCodes([int4], whole(11008)), { codes: inOrder(64) }, 'chunks of 2,752');
  t.match(planCodes([{ ...int4, scales: { dtype: 'float32' } }], whole(4096)), { codes: inOrder(32, 'float32') });
  t.match(planCodes([withZeros], whole(4096)), { format: 'int4_zero', codes: inOrder(128) });
  t.match(planCodes([int4, withZeros], whole(4096)), { format: 'int4_zero' }, 'a neighbour with zero points');
  t.match(planCodes([{ ...int4, zeroOffset: 7 }], whole(4096)), { format: 'int4_zero' }, 'a zero point that is not the middle');
  t.match(planCodes([int8], whole(4096)), { format: 'int8', codes: inOrder(128) });
  t.match(planCodes([{ ...int8, groupSize: 128 }], whole(4096)), { codes: inOrder(128) });
  t.match(planCodes([{ ...int8, groupSize: 128 }], whole(11008)), { codes: inOrder(64) }, 'chunks of 2,752');
  t.match(planCodes([{ ...int8, groupSize: 32 }, int8], whole(4096)), { codes: inOrder(32) }, 'the smaller group of two');
  t.match(planCodes([{ ...int8, scales: { dtype: 'float32' } }, int8], whole(4096)), { codes: inOrder(128, 'float32') });
  t.match(planCodes([int8WithZeros], whole(4096)), { format: 'int8_zero', codes: inOrder(128) });
  t.match(planCodes([{ ...int8WithZeros, groupSize: 128 }], whole(11008)), { format: 'int8_zero', codes: inOrder(64) });
  t.match(planCodes([int8, int8WithZeros], whole(4096)), { format: 'int8_zero' }, 'a neighbour with zero points');
  t.match(planCodes([{ ...int8, zeroOffset: 128 }], whole(4096)), { format: 'int8_zero' }, 'signed bytes around 128');
  t.match(planCodes([{ ...int8, layout: 'rows', zeroOffset: 127 }], whole(4096)), { format: 'int8_zero' });
  t.match(planCodes([{ ...int8, layout: 'rows', zeroOffset: 128 }], whole(4096)), { format: 'int8' });
  t.match(planCodes([{ ...int4, scales: { dtype: 'bfloat16' } }], whole(4096)), { codes: inOrder(128) });
  t.match(planCodes([int4], chunks(128, 32)), { codes: inOrder(128) }, 'heads of 128');
  t.match(planCodes([int4], chunks(64, 32)), { codes: inOrder(128) }, 'heads of 64');
});

test('groups that end inside a tile of a chunk', async (t) => {
  const plan = planCodes([int4], chunks(80, 8));
  const columns = 'codes' in plan ? (plan.codes.columns ?? []) : [];
  // 80 to 160: up to the end of the first group, then up to the end of the chunk.
  t.same(columns.slice(96, 192), [...range(48).map((i) => i + 80), ...Array(16).fill(-1), ...range(32).map((i) => i + 128)]);
  t.same(
    columns.filter((column) => column >= 0),
    range(640),
  );
  t.same('chunkEdges' in plan && plan.chunkEdges.slice(0, 3), [0, 96, 192]);
  const all = chunks(80, 8).edges;
  const second = planCodes([int4], { edges: [0, 80, 160], begin: 80, all, first: 1 });
  t.same(
    'codes' in second && second.codes.columns,
    columns.slice(96, 288).map((column) => Math.max(-1, column - 80)),
    'a share of them',
  );
});

test('columns sorted by group', async (t) => {
  const groups = Int32Array.from({ length: 512 }, (_, column) => column % 4);
  const plan = planCodes(
    [
      { ...int4, groups },
      { ...int4, groups: Int32Array.from(groups) },
    ],
    whole(512),
  );
  const byGroup = [0, 1, 2, 3].flatMap((group) => range(128).map((i) => i * 4 + group));
  t.match(plan, { format: 'int4', codes: { group: 32, columns: byGroup }, chunkEdges: [0, 128, 256, 384, 512] });
  t.match(planCodes([{ ...int8, groups }], whole(512)), { format: 'int8', codes: { group: 32, columns: byGroup } });
  t.match(planCodes([{ ...int8WithZeros, groups }], whole(512)), { format: 'int8_zero', codes: { group: 32, columns: byGroup } });
  const narrow = planCodes([{ ...int4, groups }], chunks(64, 8));
  t.match(narrow, { reason: /more than a quarter/ }, 'four groups of 16 in each chunk');
  t.match(
    planCodes([{ ...int4, groups }], chunks(128, 4)),
    { codes: { columns: [...range(32).map((i) => i * 4), 1, 5] } },
    'inside a chunk',
  );
  const other = groups.map((group) => 3 - group);
  t.match(
    planCodes(
      [
        { ...int4, groups },
        { ...int4, groups: other },
      ],
      whole(512),
    ),
    { reason: /in another order/ },
  );
  t.match(planCodes([{ ...int4, groups }, int4], whole(512)), { reason: /in another order/ });
});

test('what no format holds', async (t) => {
  t.match(planCodes([int4, int8], whole(4096)), { reason: /another width/ });
  t.match(planCodes([withZeros, int8WithZeros], whole(4096)), { reason: /another width/ });
  t.match(planCodes([int4, null], whole(4096)), { reason: /not stored as integers/ });
  t.match(planCodes([{ ...int4, groupSize: 8 }], whole(4096)), { reason: /more than a quarter/ });
});

test('CUDA expands what the CPU keeps as it is stored', async (t) => {
  t.same(
    (['none', 'expand', 'int8'] as const).map((quantization) => [keptOn('cuda', quantization), keptOn('cpu', quantization)]),
    [
      ['expand', 'none'],
      ['expand', 'expand'],
      ['int8', 'int8'],
    ],
  );
  const sizes = {
    blockSize: 32,
    numBlocks: 1,
    maxModelLen: 32,
    maxNumSeqs: 1,
    maxNumBatchedTokens: 1,
    maxNumLogitRows: 1,
    sampleVocabSize: 1,
  };
  const model = readModel(goldenPath('qwen2-awq'));
  for (const quantization of ['none', 'expand'] as const) {
    const { weights } = buildProgram(model, { rank: 0, worldSize: 1, dtype: 'float32', kvCacheDtype: 'float32', quantization, ...sizes });
    const kept = weights.filter((weight) => weight.kind === 'linear' && weight.codes !== null);
    t.equal(kept.length, quantization === 'none' ? 4 : 0, quantization);
  }
});
