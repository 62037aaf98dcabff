/**
 * `ndsrun bench kv-utilization [MODEL]`: the share of KV memory that holds tokens, paged and reserved ahead. Simulated:
 * no model is computed.
 */
import type { CommandShape, OptionSpec, OptionValues } from '../../launcher/command-line.ts';
import { integer, oneOf } from '../../launcher/option-parsers.ts';
import { NdsError, unexpected } from '../../protocol/errors.ts';
import { kvCacheDtypes } from '../../protocol/messages.ts';
import { resolveNumBlocks } from '../../rank/kv/budget.ts';
import { kvBytesPerBlock, partition, readModel } from '../../rank/model/index.ts';
import { outputSpecs, outputsOf, writeReport } from '../bench/output.ts';
import { type BenchRecord, benchSchema, spreadOf } from '../bench/record.ts';
import { parseOrHelp } from '../parse-or-help.ts';
import { openBar } from '../progress-bar.ts';
import { describeRun } from './bench-machine.ts';
import { compareAllocators, type KvLimits, type Utilization, uniformWorkload } from './kv-utilization.ts';
import { resolveNamed } from './resolve-models.ts';

const specs = {
  'num-requests': { value: 'N', parse: integer(1, 1_000_000), help: 'requests, all given at once (default: 256)' },
  'min-len': { value: 'N', parse: integer(1), help: 'shortest prompt and output, in tokens (default: 100)' },
  'max-len': { value: 'N', parse: integer(1), help: 'longest prompt and output; lengths are uniform between (default: 1024)' },
  seed: { value: 'N', parse: integer(0, 2 ** 32 - 1), help: 'of the lengths (default: 0)' },
  'kv-cache-tokens': { value: 'N', parse: integer(1), help: 'tokens that the cache holds (default: 65536)' },
  'kv-cache-memory-bytes': { value: 'N', parse: integer(1), help: 'the same in bytes; needs MODEL' },
  'kv-cache-dtype': { value: 'TYPE', parse: oneOf(...kvCacheDtypes), help: 'float32, bfloat16 or int8 (default: bfloat16); needs MODEL' },
  'block-size': { value: 'N', parse: integer(1), help: 'tokens of a block (default: 32)' },
  'max-model-len': { value: 'N', parse: integer(1), help: "most tokens of a sequence (default: MODEL's own limit, else twice --max-len)" },
  'max-num-seqs': { value: 'N', parse: integer(1), help: 'most sequences of one step (default: 256)' },
  'max-num-batched-tokens': { value: 'N', parse: integer(1), help: 'most tokens of one step (default: 1024)' },
  ...outputSpecs,
} satisfies Record<string, OptionSpec<unknown>>;

const shape: CommandShape<typeof specs> = {
  usage: 'ndsrun bench kv-utilization [options] [MODEL]',
  description:
    'Compares paged KV allocation, by the scheduler itself, with contiguous allocation that reserves ahead. Nothing is computed; MODEL says how large a token is.',
  examples: ['ndsrun bench kv-utilization MODEL --num-requests 128'],
  specs,
  stopAtOperand: false,
};

/** @returns the exit code. */
export async function benchKvUtilization(args: readonly string[]): Promise<number> {
  const line = parseOrHelp(shape, args);
  if (line === null) return 0;
  const { options, operands } = line;
  const [name, extra] = operands;
  if (extra !== undefined) throw new NdsError('ERR_USAGE', `Expected at most MODEL but received ${operands.length} operands`);
  const model = await resolveNamed(name);
  // Defaults of nano-vllm's benchmark, scaled to the model's context.
  const longest = options['max-model-len'] ?? (model === undefined ? 2048 : readModel(model).config.contextLengths.default);
  const maxLen = options['max-len'] ?? Math.max(1, Math.min(1024, Math.floor(longest / 2)));
  const minLen = options['min-len'] ?? Math.min(100, maxLen);
  if (maxLen < minLen) throw new NdsError('ERR_USAGE', `Expected at least --min-len = ${minLen} for --max-len but received ${maxLen}`);
  const limits = resolveLimits(options, model, maxLen);
  const seed = options.seed ?? 0;
  const numRequests = options['num-requests'] ?? 256;
  const outputs = outputsOf(options);
  const bar = openBar('simulating', 'items', outputs.quiet);
  const workload = uniformWorkload(numRequests, minLen, maxLen, seed);
  const allocators = compareAllocators(workload, limits, (numDone, total) => bar.update(numDone, total));
  bar.end();
  const report = { workload: { numRequests, minLen, maxLen, seed }, limits, allocators };
  const run = describeRun('cpu', 1);
  const records = allocators.map((each) => recordOf(each, run, name ?? null));
  writeReport({ title: 'ndsrun bench kv-utilization', records, extra: report }, outputs, () => inWords(report));
  return 0;
}

/** The share of reserved KV that holds tokens. A simulation has one round, and no threads. */
function recordOf(allocator: Utilization, run: BenchRecord['run'], model: string | null): BenchRecord {
  const { name, heldOfReserved, ...details } = allocator;
  return {
    schema: benchSchema,
    command: 'kv-utilization',
    name,
    series: 'held of reserved',
    x: null,
    unit: 'share',
    value: spreadOf([heldOfReserved]),
    numWarmups: 0,
    numRounds: 1,
    limits: [],
    numRanks: 1,
    numThreads: null,
    run,
    model: null,
    details: { ...details, model },
  };
}

function resolveLimits(options: OptionValues<typeof specs>, model: string | undefined, maxLen: number): KvLimits {
  const maxNumSeqs = options['max-num-seqs'] ?? 256;
  const limits = {
    blockSize: options['block-size'] ?? 32,
    maxNumSeqs,
    maxNumBatchedTokens: options['max-num-batched-tokens'] ?? Math.max(1024, maxNumSeqs),
  };
  if (limits.maxNumBatchedTokens < maxNumSeqs) {
    throw refuse('max-num-batched-tokens', `at least --max-num-seqs = ${maxNumSeqs}`, limits.maxNumBatchedTokens);
  }
  const { maxModelLen, numKvTokens } = sizes(options, model, limits.blockSize, maxLen);
  if (maxModelLen < 2 * maxLen) throw refuse('max-model-len', `at least ${2 * maxLen}, a prompt and an output of --max-len,`, maxModelLen);
  if (numKvTokens < maxModelLen) {
    const name = options['kv-cache-memory-bytes'] === undefined ? 'kv-cache-tokens' : 'kv-cache-memory-bytes';
    throw refuse(name, `room for one sequence of ${maxModelLen} tokens`, `${numKvTokens} tokens in whole blocks`);
  }
  return { ...limits, maxModelLen, numKvTokens };
}

/** `maxModelLen` and `numKvTokens`, which depend on the model where one is given. */
function sizes(options: OptionValues<typeof specs>, model: string | undefined, blockSize: number, maxLen: number) {
  const bytes = options['kv-cache-memory-bytes'];
  if (bytes !== undefined && options['kv-cache-tokens'] !== undefined) {
    throw new NdsError('ERR_USAGE', 'Expected --kv-cache-tokens or --kv-cache-memory-bytes but received both');
  }
  const numTokens = options['kv-cache-tokens'] ?? 65536;
  const inBlocks = Math.floor(numTokens / blockSize) * blockSize;
  if (model === undefined) {
    for (const name of ['kv-cache-memory-bytes', 'kv-cache-dtype'] as const) {
      if (options[name] !== undefined) throw new NdsError('ERR_USAGE', `Expected MODEL with --${name} but received none`);
    }
    return { maxModelLen: options['max-model-len'] ?? 2 * maxLen, numKvTokens: inBlocks };
  }
  const { config } = readModel(model);
  const maxModelLen = options['max-model-len'] ?? config.contextLengths.default;
  if (bytes === undefined) {
    if (options['kv-cache-dtype'] !== undefined) {
      throw new NdsError('ERR_USAGE', 'Expected --kv-cache-memory-bytes with --kv-cache-dtype but received none');
    }
    return { maxModelLen, numKvTokens: inBlocks };
  }
  const bytesPerBlock = [kvBytesPerBlock(config, partition(config, 0, 1), blockSize, options['kv-cache-dtype'] ?? 'bfloat16')];
  const memory = [{ freeMemoryBytes: bytes, localWorldSize: 1 }];
  const groups = [{ name: 'the model', bytesPerBlock }];
  return { maxModelLen, numKvTokens: resolveNumBlocks({ kvCacheMemoryBytes: bytes }, memory, groups, 2 ** 31 - 1) * blockSize };
}

function inWords({ workload, limits, allocators }: { workload: object; limits: KvLimits; allocators: readonly Utilization[] }): string {
  const { numRequests, minLen, maxLen, seed } = workload as { numRequests: number; minLen: number; maxLen: number; seed: number };
  const { numKvTokens, maxModelLen, maxNumSeqs, maxNumBatchedTokens } = limits;
  const percent = (share: number) => `${(share * 100).toFixed(1)} %`;
  const rows = allocators.map((each) => [
    each.name,
    each.meanNumSeqs.toFixed(1),
    percent(each.heldOfReserved),
    percent(each.held),
    percent(each.internalFragmentation),
    percent(each.unreserved),
    `${each.numSteps}`,
    `${each.numPreemptions}`,
  ]);
  const head = ['', 'sequences', 'of reserved', 'holds tokens', 'reserved, empty', 'not reserved', 'steps', 'preemptions'];
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart((widths[i] ?? 0) + 2))).join('');
  return [
    `${numRequests} requests, prompts and outputs of ${minLen} to ${maxLen} tokens (seed ${seed}), all given at once`,
    `KV cache of ${numKvTokens} tokens, sequences of at most ${maxModelLen}, steps of at most ${maxNumSeqs} sequences and ${maxNumBatchedTokens} tokens`,
    'Means over the steps in which requests wait: sequences that hold KV, the share of reserved KV that holds tokens, and the shares of the whole cache.',
    '',
    ...[head, ...rows].map(line),
    '',
  ].join('\n');
}

function refuse(name: string, expected: string, received: number | string): NdsError {
  return unexpected('ERR_USAGE', expected, `--${name}`, received, String);
}
