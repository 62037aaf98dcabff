/** Rotary embeddings: the rotation per position of each pair of dimensions. */
import type { RopeSpec } from '../program-spec.ts';
import type { ModelConfig } from './config/config.ts';
import type { RopeConfig } from './config/rope-config.ts';

type Rotation = Pick<RopeSpec, 'invFreq' | 'scale'>;

/** Tokens that a sequence may have: in this load, and as trained. */
export interface RopeContext {
  readonly maxModelLen: number;
  readonly maxPositionEmbeddings: number;
}

// Each step is rounded to fp32 where PyTorch rounds it: a frequency's error grows with the position.
const f32 = Math.fround;

/**
 * `[headDim / 2]` frequencies and the scale of cos and sin. Dimensions i and i + headDim / 2 of a head rotate together,
 * by position · invFreq[i] (RoPE, arXiv:2104.09864). Hugging Face's dynamic and longrope change with the longest
 * position seen so far; here they are those of a text as long as the context, from its first token on.
 */
export function rotation(rope: RopeConfig, headDim: number, context: RopeContext): Rotation {
  const wavelengths = positionsPerRadian(rope.type === 'dynamic' ? dynamicTheta(rope, headDim, context) : rope.theta, headDim);
  const invFreq = wavelengths.map((x) => 1 / x);
  switch (rope.type) {
    case 'default':
    case 'dynamic':
      return { invFreq, scale: 1 };
    case 'linear':
      return { invFreq: invFreq.map((x) => x / f32(rope.factor)), scale: 1 };
    case 'llama3':
      return { invFreq: invFreq.map((x) => llama3Frequency(rope, x)), scale: 1 };
    case 'longrope': {
      const factors = context.maxModelLen > rope.originalMaxPositionEmbeddings ? rope.longFactor : rope.shortFactor;
      return { invFreq: wavelengths.map((x, i) => 1 / f32(f32(factors[i] as number) * x)), scale: rope.attentionFactor };
    }
    case 'yarn':
      return { invFreq: yarnFrequencies(rope, wavelengths), scale: rope.attentionFactor };
  }
}

/** The embedding of a model's layers: of those that rotate, or of those that do not, whose frequencies are 0. */
export function ropeSpec(
  { rope, headDim, maxPositionEmbeddings, queryScaling }: ModelConfig,
  rotates: boolean,
  maxModelLen: number,
): RopeSpec {
  const context = { maxModelLen, maxPositionEmbeddings };
  const { invFreq, scale } = rotates ? rotation(rope, headDim, context) : { invFreq: new Float32Array(headDim / 2), scale: 1 };
  const { beta, length } = queryScaling ?? { beta: 0, length: maxModelLen };
  const numScales = queryScaling === null ? 0 : Math.ceil(maxModelLen / length);
  const queryScales = Float32Array.from({ length: numScales }, (_, i) => 1 + f32(f32(beta) * f32(Math.log(1 + i))));
  return { invFreq, scale, queryScales, queryLength: length };
}

/** Dynamic NTK scaling: the base grows with what the context exceeds the trained one by. */
function dynamicTheta(rope: RopeConfig & { type: 'dynamic' }, headDim: number, context: RopeContext): number {
  if (context.maxModelLen <= context.maxPositionEmbeddings) return rope.theta;
  const stretch = (rope.factor * context.maxModelLen) / context.maxPositionEmbeddings - (rope.factor - 1);
  return rope.theta * stretch ** (headDim / (headDim - 2));
}

/** theta^(2i / headDim). */
function positionsPerRadian(theta: number, headDim: number): Float32Array {
  return Float32Array.from({ length: headDim / 2 }, (_, i) => f32(theta) ** f32((2 * i) / headDim));
}

/** Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between interpolated. */
function llama3Frequency(rope: RopeConfig & { type: 'llama3' }, invFreq: number): number {
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings: original } = rope;
  const wavelength = f32(f32(1 / invFreq) * f32(2 * Math.PI));
  if (wavelength < f32(original / highFreqFactor)) return invFreq;
  const stretched = f32(invFreq / f32(factor));
  if (wavelength > f32(original / lowFreqFactor)) return stretched;
  const turns = f32(f32(1 / wavelength) * f32(original));
  const keep = f32(f32(turns - f32(lowFreqFactor)) / f32(highFreqFactor - lowFreqFactor));
  return f32(f32(f32(f32(1 - keep) * invFreq) / f32(factor)) + f32(keep * invFreq));
}

/** YaRN (arXiv:2309.00071): a linear ramp over dimensions from kept (fast) to stretched (slow) frequencies. */
function yarnFrequencies(rope: RopeConfig & { type: 'yarn' }, wavelengths: Float32Array): Float32Array {
  const headDim = wavelengths.length * 2;
  // Dimension that makes `turns` rotations over the original context.
  const dimension = (turns: number) =>
    (headDim * Math.log(rope.originalMaxPositionEmbeddings / (turns * 2 * Math.PI))) / (2 * Math.log(rope.theta));
  const fast = dimension(rope.betaFast);
  const slow = dimension(rope.betaSlow);
  const low = Math.max(rope.truncate ? Math.floor(fast) : fast, 0);
  const high = Math.min(rope.truncate ? Math.ceil(slow) : slow, headDim - 1);
  const width = low === high ? high + 0.001 - low : high - low;
  return wavelengths.map((wavelength, i) => {
    const ramp = Math.min(Math.max(f32(f32(i - f32(low)) / f32(width)), 0), 1);
    const keep = f32(1 - ramp);
    const stretched = f32(1 / f32(f32(rope.factor) * wavelength));
    return f32(f32(stretched * f32(1 - keep)) + f32(f32(1 / wavelength) * keep));
  });
}
