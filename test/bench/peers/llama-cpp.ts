/** llama.cpp's benchmark programs: where they are, how they are called, and what they print. */
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { NdsError } from '../../../protocol/errors.ts';

/** Paths of the programs. */
export interface LlamaCpp {
  readonly bench: string;
  readonly batchedBench: string;
}

/** One test of one of them. */
export interface PeerMeasured {
  readonly phase: 'prefill' | 'decode';
  readonly numTokens: number;
  readonly depth: number;
  readonly batchSize: number;
  /** `[numRepeats]` */
  readonly tokensPerSecond: readonly number[];
}

/** Commit and number of a build. */
export interface PeerBuild {
  readonly commit: string;
  readonly number: number;
}

const howToGet =
  'get llama.cpp: a release of github.com/ggml-org/llama.cpp, `brew install llama.cpp`, or its sources built with `cmake -B build && ' +
  'cmake --build build --target llama-bench llama-batched-bench`; then --llama-cpp FOLDER, NDS_LLAMA_CPP=FOLDER or a PATH with it. The ' +
  'package node-llama-cpp has its libraries and not these programs';

/** Both programs, in `folder` or else on the path. @throws NdsError `ERR_NOT_FOUND` that says how to get them. */
export function findLlamaCpp(folder: string | null, path: string): LlamaCpp {
  const folders = folder === null ? path.split(delimiter).filter((one) => one !== '') : [folder, join(folder, 'bin')];
  const find = (name: string) => {
    const found = folders.map((one) => join(one, name)).find(isExecutable);
    if (found === undefined)
      throw new NdsError('ERR_NOT_FOUND', `Expected ${name} ${folder === null ? 'on the path' : `in ${folder}`}: ${howToGet}`);
    return found;
  };
  return { bench: find('llama-bench'), batchedBench: find('llama-batched-bench') };
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

/** What `llama-bench -o jsonl` printed. @throws NdsError `ERR_SYSTEM` for lines of another form. */
export function parseBench(stdout: string): { readonly build: PeerBuild; readonly measured: readonly PeerMeasured[] } {
  const lines = jsonLines(stdout, 'llama-bench');
  const measured = lines.map((line): PeerMeasured => {
    const [numPrompt, numGenerated] = [numberOf(line, 'n_prompt'), numberOf(line, 'n_gen')];
    const samples = line['samples_ts'];
    if (!Array.isArray(samples) || samples.length === 0 || !samples.every((rate) => typeof rate === 'number' && rate > 0))
      throw unread('llama-bench', 'samples_ts', samples);
    const numTokens = numPrompt + numGenerated;
    return {
      phase: numGenerated === 0 ? 'prefill' : 'decode',
      numTokens,
      depth: numberOf(line, 'n_depth'),
      batchSize: 1,
      tokensPerSecond: samples,
    };
  });
  const [first = {}] = lines;
  return { build: { commit: String(first['build_commit']), number: numberOf(first, 'build_number') }, measured };
}

/** What `llama-batched-bench --output-format jsonl` printed: lines of one batch size are repeats. */
export function parseBatchedBench(stdout: string): readonly PeerMeasured[] {
  const byBatch = new Map<number, PeerMeasured & { tokensPerSecond: number[] }>();
  for (const line of jsonLines(stdout, 'llama-batched-bench')) {
    const batchSize = numberOf(line, 'pl');
    const one = byBatch.get(batchSize) ?? {
      phase: 'decode' as const,
      numTokens: numberOf(line, 'tg'),
      depth: numberOf(line, 'pp'),
      batchSize,
      tokensPerSecond: [],
    };
    one.tokensPerSecond.push(numberOf(line, 'speed_tg'));
    byBatch.set(batchSize, one);
  }
  return [...byBatch.values()];
}

function jsonLines(stdout: string, program: string): Record<string, unknown>[] {
  const lines = stdout.split('\n').filter((line) => line.startsWith('{'));
  if (lines.length === 0) throw unread(program, 'lines of JSON', stdout.slice(0, 200));
  return lines.map((line) => {
    try {
      return JSON.parse(line);
    } catch {
      throw unread(program, 'lines of JSON', line);
    }
  });
}

function numberOf(line: Readonly<Record<string, unknown>>, key: string): number {
  const value = line[key];
  if (typeof value !== 'number') throw unread('llama.cpp', `a number ${key}`, value);
  return value;
}

function unread(program: string, expected: string, received: unknown): NdsError {
  return new NdsError('ERR_SYSTEM', `Expected ${expected} of ${program} but received ${JSON.stringify(received)}`);
}
