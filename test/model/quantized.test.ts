/**
 * Logits of weights that are quantized at load are those of the dequantized weights, but for the rounding of activations: which
 * matrix takes which format, and over which columns a scale is shared, by the formula in TypeScript.
 */
import { join } from 'node:path';
import t from 'tap';
import { type Quantize, writeDequantized } from '../helpers/dequantized.ts';
import { logitsOf, runJob, type Session } from '../helpers/gang.ts';
import { goldenPath } from '../helpers/goldens.ts';
import { quantizeWeights } from '../references/quantized.ts';

const promptTokenIds = Array.from({ length: 24 }, (_, i) => (i * i * 7 + 17 * i + 5) % 96);

/** Mistakes that the comparison must find. */
const mistakes: Record<string, Quantize> = {
  'scales a sixteenth too large': (w, format) => {
    const { q, scale } = quantizeWeights(w, format);
    return { q, scale: scale * (17 / 16) };
  },
  'one code off in a group': (w, format) => {
    const { q, scale } = quantizeWeights(w, format);
    return { q: q.map((code, i) => (i === 0 ? code + 16 : code)), scale };
  },
  'four bits for the LM head and all others': (w) => quantizeWeights(w, 'int4'),
};

/** Root of the mean square of a - b, relative to that of b. */
function relativeError(a: Float32Array, b: Float32Array): number {
  const squares = (values: Float32Array) => values.reduce((sum, value) => sum + value * value, 0);
  return Math.sqrt(squares(a.map((value, i) => value - (b[i] as number))) / squares(b));
}

const session = (model: string, quantization: 'none' | 'int8' | 'int4'): Session => ({
  model,
  options: { dtype: 'float32', quantization, numThreads: 1, maxNumSeqs: 1 },
  rounds: [[{ type: 'logits', promptTokenIds }]],
});

/** Activations of eight bits move the logits of these models by 2 to 3 %. */
const most = 0.05;

for (const name of ['smollm-nine-heads-bf16', 'qwen3-untied-fp32', 'llama-gqa-tied-bf16']) {
  for (const format of ['int8', 'int4'] as const) {
    t.test(`${name} in ${format}`, async (t) => {
      const root = t.testdir();
      const dequantized = Object.entries({ right: quantizeWeights, ...mistakes }).map(([what, quantize]) => {
        const folder = join(root, what.replaceAll(' ', '-'));
        writeDequantized(folder, goldenPath(name), format, quantize);
        return session(folder, 'none');
      });
      const { sessions } = await runJob(1, [session(goldenPath(name), format), ...dequantized]);
      const [quantized, right, ...wrong] = sessions.map(([answer]) => logitsOf(answer)) as [Float32Array, Float32Array, ...Float32Array[]];
      const error = relativeError(quantized, right);
      t.ok(error > 0 && error < most, `${error} from the dequantized weights`);
      Object.keys(mistakes).forEach((what, i) => {
        const found = relativeError(quantized, wrong[i] as Float32Array);
        t.ok(found > 1.5 * most, `${found}: ${what}`);
      });
    });
  }
}
