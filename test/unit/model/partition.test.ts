/** The heads, KV heads, MLP columns and vocabulary of every rank, for any number of ranks. */
import { test } from 'tap';
import type { ModelConfig } from '../../../rank/model/config/config.ts';
import { inputChunkEdges, type Partition, padToPanel, partition } from '../../../rank/model/partition.ts';

type Shape = Pick<ModelConfig, 'numAttentionHeads' | 'numKvHeads' | 'intermediateSize' | 'vocabSize'>;

const split = (shape: Shape, worldSize: number): Partition[] =>
  Array.from({ length: worldSize }, (_, rank) => partition(shape as ModelConfig, rank, worldSize));

const shapes: Shape[] = [
  { numAttentionHeads: 9, numKvHeads: 3, intermediateSize: 1536, vocabSize: 49152 },
  { numAttentionHeads: 9, numKvHeads: 3, intermediateSize: 144, vocabSize: 256 },
  { numAttentionHeads: 16, numKvHeads: 8, intermediateSize: 3072, vocabSize: 151936 },
  { numAttentionHeads: 14, numKvHeads: 2, intermediateSize: 4864, vocabSize: 151936 },
  { numAttentionHeads: 8, numKvHeads: 1, intermediateSize: 130, vocabSize: 251 },
  { numAttentionHeads: 32, numKvHeads: 32, intermediateSize: 21, vocabSize: 5 },
  { numAttentionHeads: 1, numKvHeads: 1, intermediateSize: 1, vocabSize: 1 },
];

for (const shape of shapes) {
  test(JSON.stringify(shape), async (t) => {
    const { numAttentionHeads, numKvHeads, intermediateSize, vocabSize } = shape;
    const groupSize = numAttentionHeads / numKvHeads;
    const [whole] = split(shape, 1) as [Partition];
    t.same(
      [whole.heads, whole.kvHeads, whole.mlpColumns, whole.vocabRows],
      [
        [0, numAttentionHeads],
        [0, numKvHeads],
        [0, intermediateSize],
        [0, vocabSize],
      ],
    );
    for (let worldSize = 1; worldSize <= numAttentionHeads; worldSize++) {
      const parts = split(shape, worldSize);
      for (const key of ['heads', 'mlpColumns', 'vocabRows'] as const) {
        const ends = parts.map((part) => part[key][1]);
        t.same(
          parts.map((part) => part[key][0]),
          [0, ...ends.slice(0, -1)],
          `${key} of ${worldSize} ranks follow each other`,
        );
        t.equal(ends.at(-1), whole[key][1]);
      }
      const sizes = parts.map(({ heads }) => heads[1] - heads[0]);
      t.ok(Math.max(...sizes) - Math.min(...sizes) <= 1 && Math.min(...sizes) >= 1, 'every rank has heads, none has two more than another');
      for (const part of parts) {
        const used = Array.from({ length: part.heads[1] - part.heads[0] }, (_, i) => Math.floor((part.heads[0] + i) / groupSize));
        t.same(part.kvHeads, [Math.min(...used), Math.max(...used) + 1], 'the KV heads that its heads use');
        t.same(part.mlpEdges, whole.mlpEdges, 'the same chunks as one rank has');
        t.same(
          part.mlpColumns,
          part.heads.map((head) => whole.mlpEdges[head]),
          'those of its heads',
        );
      }
    }
  });
}

test('edges lie where kernels can cut', async (t) => {
  const [wide] = split({ numAttentionHeads: 9, numKvHeads: 3, intermediateSize: 1536, vocabSize: 49152 }, 1) as [Partition];
  t.same(wide.mlpEdges, [0, 160, 320, 512, 672, 832, 1024, 1184, 1344, 1536]);
  const [narrow] = split({ numAttentionHeads: 8, numKvHeads: 1, intermediateSize: 130, vocabSize: 251 }, 1) as [Partition];
  t.same(narrow.mlpEdges, [0, 16, 32, 48, 64, 80, 96, 112, 130], 'multiples of 4 where panels are too few, the last ragged');
  const [tiny] = split({ numAttentionHeads: 32, numKvHeads: 32, intermediateSize: 21, vocabSize: 5 }, 1) as [Partition];
  t.ok(
    tiny.mlpEdges.some((edge, i) => edge === tiny.mlpEdges[i + 1]),
    'chunks may be empty',
  );
  t.same(
    split({ numAttentionHeads: 8, numKvHeads: 1, intermediateSize: 130, vocabSize: 251 }, 3).map((part) => part.vocabRows),
    [
      [0, 64],
      [64, 160],
      [160, 251],
    ],
  );
  t.same(
    split({ numAttentionHeads: 2, numKvHeads: 1, intermediateSize: 64, vocabSize: 31 }, 2).map((part) => part.vocabRows),
    [
      [0, 0],
      [0, 31],
    ],
    'a rank may have no vocabulary',
  );
});

test('more ranks than heads', async (t) => {
  t.throws(() => split({ numAttentionHeads: 2, numKvHeads: 1, intermediateSize: 64, vocabSize: 64 }, 3), {
    code: 'ERR_TOO_MANY_RANKS',
    message: /at most 2 ranks .* received 3/,
  });
});

test('input chunks depend on the width alone', async (t) => {
  t.same(inputChunkEdges(1024), [0, 256, 512, 768, 1024]);
  t.same(inputChunkEdges(256), [0, 64, 128, 192, 256]);
  t.same(inputChunkEdges(576), [0, 128, 288, 416, 576]);
  t.same(inputChunkEdges(300), [0, 64, 128, 224, 300]);
  t.same(inputChunkEdges(255), [0, 96, 255]);
  t.same(inputChunkEdges(128), [0, 64, 128]);
  t.same(inputChunkEdges(127), [0, 127]);
  t.same([0, 1, 32, 33].map(padToPanel), [0, 32, 32, 64]);
});
