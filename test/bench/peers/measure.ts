/** Measures a shape in a format: runs of both engines in turns, on the same made-up weights. */
import { closeSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openNameless } from '../../../bin/bench/nameless-file.ts';
import type { Sizes as ShapeSizes } from '../../../bin/bench/shapes.ts';
import { NdsError } from '../../../protocol/errors.ts';
import { packageRoot } from '../../../protocol/package-root.ts';
import { runChild } from './child.ts';
import { type Pair, pairsOf } from './comparison.ts';
import { writeGguf } from './gguf-file.ts';
import { type Format, ggufMetadata, ggufTensors } from './gguf-model.ts';
import { formatArgs, type GroupName, ownArgs, peerCommand, type Sizes, startPromptLen } from './groups.ts';
import { type LlamaCpp, type PeerBuild, parseBatchedBench, parseBench } from './llama-cpp.ts';
import { type OwnMeasured, parseOwn } from './own.ts';

const ndsrun = join(packageRoot(), 'bin', 'ndsrun.js');
const firstToken = fileURLToPath(new URL('first-token.ts', import.meta.url));

export interface Setting {
  readonly shape: string;
  readonly shapeSizes: ShapeSizes;
  readonly format: Format;
  /** The model's folder for ours. */
  readonly model: string;
  /** Where GGUF files and packed shards go. */
  readonly folder: string;
  readonly sizes: Sizes;
  readonly numThreads: number;
  readonly llamaCpp: LlamaCpp;
  readonly signal: AbortSignal;
}

export interface Found {
  readonly pairs: readonly Pair[];
  readonly build: PeerBuild | null;
}

/** Measures with the weights in GGUF at `file`. In every other round llama.cpp comes first. */
export async function measureRound(setting: Setting, file: string, groups: readonly GroupName[], round: number): Promise<Found> {
  const { shape, format } = setting;
  const pairs: Pair[] = [];
  let build: PeerBuild | null = null;
  const inTurns = async <A, B>(ours: () => Promise<A>, peer: () => Promise<B>): Promise<[A, B]> => {
    if (round % 2 === 0) return [await ours(), await peer()];
    const second = await peer();
    return [await ours(), second];
  };
  for (const group of groups) {
    if (group === 'start') {
      for (const shards of format === 'bf16' ? (['kept'] as const) : (['kept', 'none'] as const)) {
        // The first start of a quantized model packs the shards that later ones find.
        if (round === 0 && format !== 'bf16' && shards === 'kept') await startOwn(setting, true);
        const [ours, peer] = await inTurns(
          () => startOwn(setting, shards === 'kept'),
          () => startPeer(setting, file),
        );
        const name = shards === 'kept' ? 'first token' : 'first token, no packed shards';
        pairs.push({ shape, format, name, unit: 's', ours, peer, measured: null });
      }
      continue;
    }
    const [own, peer] = await inTurns(
      () => runOwn(setting, group),
      () => runPeer(setting, group, file),
    );
    pairs.push(...pairsOf(shape, format, own, peer.measured));
    build ??= peer.build;
  }
  return { pairs, build };
}

/** Writes the weights for llama.cpp, and removes them once `use` is done. @throws NdsError `ERR_SYSTEM` where there is no room. */
export async function withGguf<T>(
  setting: Setting,
  onProgress: (doneBytes: number, totalBytes: number) => void,
  use: (file: string) => Promise<T>,
): Promise<T> {
  const { shape, shapeSizes, format, folder, signal } = setting;
  const path = join(folder, `${shape}-${format}.gguf`);
  const { file } = openNameless(path);
  try {
    await writeGguf(file, ggufMetadata(shape, shapeSizes, format), ggufTensors(shapeSizes, format), (done, total) => {
      signal.throwIfAborted();
      onProgress(done, total);
    }).catch((error: NodeJS.ErrnoException) => {
      signal.throwIfAborted();
      if (error.code === undefined) throw error;
      throw new NdsError('ERR_SYSTEM', `Expected room for the weights of ${shape} in ${folder} but received ${error.message}`, {
        cause: error,
      });
    });
    return await use(path);
  } finally {
    closeSync(file);
    rmSync(path, { force: true });
  }
}

/** Shards that loads pack lie beside the weights, and end with them. */
function ownEnv(folder: string): NodeJS.ProcessEnv {
  const cache = join(folder, 'cache');
  mkdirSync(cache, { recursive: true });
  return { ...process.env, NDS_CACHE_DIR: cache, TMPDIR: folder };
}

async function runOwn(
  { model, format, folder, sizes, numThreads, signal }: Setting,
  group: Exclude<GroupName, 'start'>,
): Promise<OwnMeasured[]> {
  const load = ['--nproc-per-node=1', `--num-threads=${numThreads}`, '--device=cpu', ...formatArgs(format)];
  const args = [...ownArgs(group, sizes), ...load, '--quiet', '--json', model];
  const { stdout } = await runChild(process.execPath, [ndsrun, ...args], { env: ownEnv(folder), signal });
  return parseOwn(stdout);
}

async function runPeer({ sizes, numThreads, llamaCpp, signal }: Setting, group: Exclude<GroupName, 'start'>, file: string) {
  const [program, ...args] = peerCommand(group, llamaCpp, sizes, file, numThreads);
  const { stdout } = await runChild(program, args, { env: process.env, signal });
  return group === 'batch' ? { build: null, measured: parseBatchedBench(stdout) } : parseBench(stdout);
}

/** Seconds from the start of `ndsrun` to a first token. */
async function startOwn({ model, format, folder, numThreads, signal }: Setting, keepsShards: boolean): Promise<number> {
  const env = { ...ownEnv(folder), NDS_SHARD_CACHE: keepsShards ? 'on' : 'off' };
  const quantization = format === 'bf16' ? 'none' : format;
  const args = ['--nproc-per-node=1', firstToken, model, `${startPromptLen}`, quantization, `${numThreads}`];
  return (await runChild(process.execPath, [ndsrun, ...args], { env, signal, mark: /first token/ })).seconds;
}

/** Seconds from the start of `llama-bench` to the end of its only prefill. */
async function startPeer({ sizes, numThreads, llamaCpp, signal }: Setting, file: string): Promise<number> {
  const [program, ...args] = peerCommand('start', llamaCpp, sizes, file, numThreads);
  return (await runChild(program, args, { env: process.env, signal, mark: /^\{/m })).seconds;
}
