/** Rotary embeddings: every type and its options against Hugging Face transformers. */
import { readFileSync } from 'node:fs';
import { test } from 'tap';
import { ConfigReader } from '../../../rank/model/config/config-reader.ts';
import { parseRope } from '../../../rank/model/config/rope-config.ts';
import { ropeSpec } from '../../../rank/model/rope.ts';

interface RopeCase {
  config: { head_dim: number; max_position_embeddings?: number };
  scale: number;
  invFreq: number[];
}

const { cases } = JSON.parse(readFileSync(new URL('../../fixtures/rope.json', import.meta.url), 'utf8')) as { cases: RopeCase[] };

for (const { config, scale, invFreq } of cases) {
  test(JSON.stringify(config), async (t) => {
    const rope = parseRope(
      new ConfigReader('config.json', config as object as Record<string, unknown>),
      config.max_position_embeddings ?? 4096,
    );
    const spec = ropeSpec(rope, config.head_dim);
    t.equal(spec.invFreq.length, config.head_dim / 2);
    t.ok(Math.abs(spec.scale - scale) < 1e-12, `scale ${spec.scale}`);
    // Two roundings to fp32, and libraries that differ in the last bit of a power.
    const errors = invFreq.map((expected, i) => Math.abs((spec.invFreq[i] as number) / expected - 1));
    t.ok(Math.max(...errors) <= 2 ** -22, `largest relative error ${Math.max(...errors)}`);
  });
}
