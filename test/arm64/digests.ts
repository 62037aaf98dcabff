/**
 * Digests of what the operators compute, by instruction set, as JSON: `{ [isa]: { [operator]: digest } }`. Inputs are
 * exact multiples, the same on every machine, so that digests of two processors can be compared.
 */
import { createHash } from 'node:crypto';
import { native } from '../../rank/native.ts';
import { randomIntegers } from '../helpers/random.ts';
import { activationTypes, cacheTypes, isas, testing } from '../helpers/testing.ts';
import { attentionProblem } from '../references/attention.ts';
import { type Problem, problem } from '../references/linear.ts';

const integers = randomIntegers(41);
const draw = (): number => (integers(4001) - 2000) / 512;
const draws = (count: number): Float32Array => Float32Array.from({ length: count }, draw);
/** Moves values off what a processor's logarithm and cosine, by which references draw, may have rounded otherwise. */
const snapped = (values: Float32Array): Float32Array => values.map((value) => Math.round(value * 256) / 256);

const linear = native().testing.linear as (options: Problem & { isa: string; numThreads: number }) => { roots: Float32Array };
const formats = ['bfloat16', 'float16', 'float32', 'int8', 'int4'] as const;
const chunkEdges = [0, 31, 96, 150];
const products = formats.flatMap((format) =>
  activationTypes.flatMap((xDtype) =>
    [1, 2, 3, 4, 7, 13].map((m) => problem({ m, k: 150, n: 70, format, xDtype, chunkEdges, bias: m > 3 }, draw)),
  ),
);
const lengths = [
  [1, 130],
  [40, 40],
  [9, 75],
] as const;
const attentions = cacheTypes.flatMap((cache) =>
  [64, 20].map((headDim) => {
    const p = attentionProblem({ headDim, numHeads: 6, groupSize: 3, lengths, ...cache }, integers);
    return { ...p, q: snapped(p.q), k: snapped(p.k), v: snapped(p.v) };
  }),
);
const [x, weight, logits] = [draws(7 * 200), draws(200), draws(5000)];
const words = Float32Array.from({ length: 5000 }, () => (integers(2 ** 24) + 1) / 2 ** 18);

/** Results of one operator on all inputs. */
const operators: Readonly<Record<string, (isa: string) => ArrayBufferView[]>> = {
  ...Object.fromEntries(
    formats.flatMap((format) =>
      activationTypes.map((xDtype) => [
        `linear ${format} x ${xDtype}`,
        (isa: string) =>
          products.filter((p) => p.format === format && p.xDtype === xDtype).map((p) => linear({ ...p, isa, numThreads: 1 }).roots),
      ]),
    ),
  ),
  ...Object.fromEntries(
    activationTypes.map((dtype) => [
      `attention ${dtype}`,
      (isa: string) => attentions.filter((p) => p.dtype === dtype).map((p) => testing.pagedAttention({ ...p, isa, numThreads: 1 })),
    ]),
  ),
  norm: (isa) =>
    activationTypes.map((outDtype) => testing.rmsNorm({ isa, numThreads: 1, x, rows: 7, width: 200, weight, eps: 1e-6, outDtype })),
  silu: (isa) => activationTypes.map((outDtype) => testing.siluMul({ isa, numThreads: 1, gateUp: x, rows: 7, width: 100, outDtype })),
  functions: (isa) => (['exp', 'log', 'gumbel'] as const).map((name) => testing.map({ isa, function: name, x: words })),
  logprobs: (isa) => {
    const { ids, logprobs } = testing.logProbabilities({ isa, logits, numDrawable: 4990, token: 17, numLikeliest: 20 });
    return [ids, logprobs];
  },
};

function digest(parts: readonly ArrayBufferView[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
  return hash.digest('hex').slice(0, 16);
}

const digests = isas.map((isa) => [isa, Object.fromEntries(Object.entries(operators).map(([name, run]) => [name, digest(run(isa))]))]);
console.log(JSON.stringify(Object.fromEntries(digests), null, 2));
