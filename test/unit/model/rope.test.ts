/** Rotary embeddings: every type and its options against Hugging Face transformers. */
import { readFileSync } from 'node:fs';
import { test } from 'tap';
import { ConfigReader } from '../../../rank/model/config/config-reader.ts';
import { contextLengths, parseRope } from '../../../rank/model/config/rope-config.ts';
import { rotation } from '../../../rank/model/rope.ts';

interface RopeCase {
  config: { head_dim: number; max_position_embeddings?: number };
  /** Absent = `max_position_embeddings`. */
  maxModelLen?: number;
  scale: number;
  invFreq: number[];
}

const { cases } = JSON.parse(readFileSync(new URL('../../fixtures/rope.json', import.meta.url), 'utf8')) as { cases: RopeCase[] };

for (const { config, scale, invFreq, maxModelLen } of cases) {
  test(`${JSON.stringify(config)} for ${maxModelLen ?? 'all'} positions`, async (t) => {
    const maxPositionEmbeddings = config.max_position_embeddings ?? 4096;
    const rope = parseRope(new ConfigReader('config.json', config as object as Record<string, unknown>), {
      maxPositionEmbeddings,
      headDim: config.head_dim,
      theta: 10000,
      hasSections: false,
    });
    const context = { maxModelLen: maxModelLen ?? maxPositionEmbeddings, maxPositionEmbeddings };
    const spec = rotation(rope, config.head_dim, context);
    t.equal(spec.invFreq.length, config.head_dim / 2);
    t.ok(Math.abs(spec.scale - scale) < 1e-12, `scale ${spec.scale}`);
    // Two roundings to fp32, and libraries that differ in the last bit of a power.
    const errors = invFreq.map((expected, i) => Math.abs((spec.invFreq[i] as number) / expected - 1));
    t.ok(Math.max(...errors) <= 2 ** -22, `largest relative error ${Math.max(...errors)}`);
  });
}

test('how long a context each type serves', async (t) => {
  const lengths = (section: Record<string, unknown>) => {
    const reader = new ConfigReader('config.json', { rope_scaling: section });
    return contextLengths(parseRope(reader, { maxPositionEmbeddings: 1024, headDim: 8, theta: 10000, hasSections: false }), 1024);
  };
  const lists = { short_factor: [1, 1, 1, 1], long_factor: [1, 2, 3, 4] };
  t.same(lengths({ rope_type: 'yarn', factor: 4, original_max_position_embeddings: 1024 }), { default: 4096, max: 4096 });
  t.same(lengths({ rope_type: 'yarn', factor: 4, original_max_position_embeddings: 256 }), { default: 1024, max: 1024 });
  t.same(lengths({ rope_type: 'yarn', factor: 2, original_max_position_embeddings: 256 }), { default: 1024, max: 1024 });
  t.same(lengths({ rope_type: 'linear', factor: 2.5 }), { default: 2560, max: 2560 });
  t.same(lengths({ rope_type: 'linear', factor: 0.5 }), { default: 1024, max: 1024 });
  t.same(lengths({ rope_type: 'dynamic', factor: 2 }), { default: 1024, max: 2048 });
  t.same(lengths({ rope_type: 'longrope', original_max_position_embeddings: 256, ...lists }), { default: 256, max: 1024 });
  t.same(lengths({ rope_type: 'default' }), { default: 1024, max: 1024 });
  t.throws(() => lengths({ rope_type: 'longrope', ...lists, long_factor: [1, 2, 3] }), { code: 'ERR_CONFIG', message: /long_factor/ });
  t.throws(() => lengths({ rope_type: 'longrope', ...lists, short_factor: [1, 2, 3, 0] }), { code: 'ERR_CONFIG', message: /short_factor/ });
});
