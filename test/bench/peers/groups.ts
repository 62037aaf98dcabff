/** What a comparison measures: groups of cells that one run of each engine measures, and both command lines. Pure. */
import type { Format } from './gguf-model.ts';
import type { LlamaCpp } from './llama-cpp.ts';

/** `single`: prefill, and decode of one sequence. `batch`: several that decode together. `deep`: at context. `start`: to the first token. */
export const groupNames = ['single', 'batch', 'deep', 'start'] as const;
export type GroupName = (typeof groupNames)[number];

/** How long the measurements are. */
export interface Sizes {
  readonly promptLen: number;
  /** Tokens of a decode. */
  readonly numTokens: number;
  readonly depth: number;
  readonly batchSizes: readonly number[];
  /** Measurements in one run; their median counts. */
  readonly numRepeats: number;
}

/** Tokens that each sequence of a batch has before, a block of the KV cache. */
export const batchDepth = 32;
/** Tokens of the prompt whose first answer is timed. */
export const startPromptLen = 32;

/** Sizes by bytes of bf16 weights: steps of small models are short, and long ones cost minutes. */
export function sizesFor(weightBytes: number): Sizes {
  const [numTokens, numRepeats] = weightBytes < 100e6 ? [256, 5] : weightBytes < 600e6 ? [128, 3] : [48, 2];
  return { promptLen: 512, numTokens, depth: 2048, batchSizes: [8, 32], numRepeats };
}

/** Arguments of `ndsrun` for a group, without model and load options. */
export function ownArgs(group: Exclude<GroupName, 'start'>, sizes: Sizes): string[] {
  const { promptLen, numTokens, depth, batchSizes, numRepeats } = sizes;
  if (group === 'single')
    return ['bench', 'latency', `--prompt-len=${promptLen}`, `--max-tokens=${numTokens}`, '--depth=0', `--rounds=${numRepeats}`];
  if (group === 'deep') return ['bench', 'latency', '--prompt-len=0', `--max-tokens=${numTokens}`, `--depth=${depth}`, '--rounds=1'];
  const batches = [`--batch-sizes=${batchSizes}`, `--depth=${batchDepth}`, `--rounds=${numRepeats}`];
  return ['bench', 'throughput', '--prompt-len=0', `--max-tokens=${numTokens}`, ...batches];
}

/** Program and arguments of llama.cpp for the same; nothing on a GPU. */
export function peerCommand(
  group: GroupName,
  { bench, batchedBench }: LlamaCpp,
  { promptLen, numTokens, depth, batchSizes, numRepeats }: Sizes,
  file: string,
  numThreads: number,
): readonly [program: string, ...args: string[]] {
  const common = ['-m', file, '-t', `${numThreads}`, '-ngl', '0'];
  const counts = (prompt: number, generated: number, repeats: number) => ['-p', `${prompt}`, '-n', `${generated}`, '-r', `${repeats}`];
  const json = ['-o', 'jsonl'];
  if (group === 'single') return [bench, ...common, ...counts(promptLen, numTokens, numRepeats), ...json];
  if (group === 'deep') return [bench, ...common, ...counts(0, numTokens, 1), '-d', `${depth}`, ...json];
  if (group === 'start') return [bench, ...common, ...counts(startPromptLen, 0, 1), '--no-warmup', ...json];
  const repeated = batchSizes.flatMap((size) => Array<number>(numRepeats).fill(size));
  const context = Math.max(...batchSizes) * (batchDepth + numTokens);
  const lengths = ['-npp', `${batchDepth}`, '-ntg', `${numTokens}`, '-npl', `${repeated}`, '-c', `${context}`];
  return [batchedBench, ...common, '-tb', `${numThreads}`, ...lengths, '--output-format', 'jsonl'];
}

/** Load options of a format, on the command line. */
export function formatArgs(format: Format): string[] {
  return format === 'bf16' ? [] : [`--quantization=${format}`];
}
