/** The golden checkpoints: tiny random models, and what Hugging Face transformers computes with them in float32. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface Golden {
  readonly name: string;
  /** The checkpoint folder. */
  readonly path: string;
  readonly prompts: readonly (readonly number[])[];
  /** Greedy continuation of each prompt; end of sequence is ignored. */
  readonly greedy: readonly (readonly number[])[];
  /** `[promptLength, vocabSize]` logits of each prompt, row by row. */
  readonly logits: readonly Float32Array[];
}

const folder = fileURLToPath(new URL('../fixtures/goldens', import.meta.url));

export const goldenNames = readdirSync(folder).sort();

export function goldenPath(name: string): string {
  return join(folder, name);
}

export function readGolden(name: string): Golden {
  const path = goldenPath(name);
  const { prompts, greedy } = JSON.parse(readFileSync(join(path, 'expected.json'), 'utf8')) as Pick<Golden, 'prompts' | 'greedy'>;
  const bytes = readFileSync(join(path, 'expected.safetensors'));
  const headerLength = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + headerLength)) as Record<string, { data_offsets: [number, number] }>;
  const logits = prompts.map((_, i) => {
    const [begin, end] = header[`logits.${i}`]?.data_offsets ?? [0, 0];
    return new Float32Array(Uint8Array.from(bytes.subarray(8 + headerLength + begin, 8 + headerLength + end)).buffer);
  });
  return { name, path, prompts, greedy, logits };
}

/** max |a − b| ÷ max |b|. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let difference = 0;
  let scale = 0;
  for (let i = 0; i < b.length; i++) {
    difference = Math.max(difference, Math.abs((a[i] ?? Number.NaN) - (b[i] as number)));
    scale = Math.max(scale, Math.abs(b[i] as number));
  }
  return a.length === b.length && !Number.isNaN(difference) ? difference / scale : Number.POSITIVE_INFINITY;
}

/** Smallest cosine between corresponding rows of a and b, `[numRows, width]`. */
export function smallestCosine(a: Float32Array, b: Float32Array, width: number): number {
  let smallest = 1;
  for (let begin = 0; begin < b.length; begin += width) {
    let [ab, aa, bb] = [0, 0, 0];
    for (let i = begin; i < begin + width; i++) {
      const [x, y] = [a[i] ?? Number.NaN, b[i] as number];
      ab += x * y;
      aa += x * x;
      bb += y * y;
    }
    smallest = Math.min(smallest, ab / Math.sqrt(aa * bb));
  }
  return a.length === b.length ? smallest : Number.NaN;
}
