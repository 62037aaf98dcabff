/**
 * `npm run bench:peers -- [options]`: ours and llama.cpp on the same made-up weights, in turns, as ratios in one table.
 *
 * Both get the values of `ndsrun bench --shape`: ours as a checkpoint in bf16, quantized at load; llama.cpp as GGUF files in
 * BF16, Q8_0 and Q4_0. Files lie in TMPDIR and end with the script.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { outputSpecs, outputsOf } from '../../bin/bench/output.ts';
import type { BenchRun } from '../../bin/bench/record.ts';
import { alignedRows, markdownRows } from '../../bin/bench/render-text.ts';
import { shapeName, shapes } from '../../bin/bench/shapes.ts';
import { makeModel } from '../../bin/bench/synthetic-model.ts';
import { describeRun } from '../../bin/commands/bench-machine.ts';
import { parseOrHelp } from '../../bin/parse-or-help.ts';
import { openBar } from '../../bin/progress-bar.ts';
import type { CommandShape, OptionSpec } from '../../launcher/command-line.ts';
import { integer, listOf, oneOf, text } from '../../launcher/option-parsers.ts';
import { NdsError } from '../../protocol/errors.ts';
import { numUsableCores, readProcessors } from '../../protocol/processors.ts';
import { publicJson } from '../../protocol/public-json.ts';
import { type Comparison, compare, type Pair, rowsOf } from './peers/comparison.ts';
import { bytesRead, formats } from './peers/gguf-model.ts';
import { groupNames, sizesFor } from './peers/groups.ts';
import { findLlamaCpp, type PeerBuild } from './peers/llama-cpp.ts';
import { measureRound, type Setting, withGguf } from './peers/measure.ts';

const { html: _, ...printed } = outputSpecs;
const defaultShapes = ['qwen3-0.6b', 'smollm2-135m', 'story-5m'] as const;
const specs = {
  shapes: { value: 'NAME,NAME', parse: listOf(shapeName), help: `(default: ${defaultShapes})` },
  formats: { value: 'TYPE,TYPE', parse: listOf(oneOf(...formats)), help: 'bf16, int8, int4, beside BF16, Q8_0, Q4_0 (default: all)' },
  groups: { value: 'NAME,NAME', parse: listOf(oneOf(...groupNames)), help: `what is measured: ${groupNames.join(', ')} (default: all)` },
  'batch-sizes': { value: 'N,N', parse: listOf(integer(1, 256)), help: 'of the group batch (default: 8,32)' },
  'prompt-len': { value: 'N', parse: integer(1), help: 'tokens of a prefill (default: 512)' },
  'max-tokens': { value: 'N', parse: integer(1), help: 'tokens of a decode (default: 48 to 256, by the size of the shape)' },
  depth: { value: 'N', parse: integer(1), help: 'tokens cached before the group deep; whole blocks (default: 2048)' },
  repeats: {
    value: 'N',
    parse: integer(1),
    help: 'measurements in one run, whose median counts (default: 2 to 5, by the size of the shape)',
  },
  rounds: { value: 'N', parse: integer(1), help: 'pairs of runs (default: 3)' },
  threads: { value: 'N', parse: integer(1), help: 'of both engines (default: the cores that may be used)' },
  'llama-cpp': {
    value: 'FOLDER',
    parse: text,
    help: 'where llama-bench and llama-batched-bench are (default: NDS_LLAMA_CPP, else the path)',
  },
  ...printed,
} satisfies Record<string, OptionSpec<unknown>>;

const shape: CommandShape<typeof specs> = {
  usage: 'bench:peers [options]',
  description: 'Measures ours and llama.cpp in turns, on the same made-up weights. NDS_ISA chooses our instruction set.',
  examples: ['npm run bench:peers -- --shapes qwen3-0.6b --formats int8,int4 --llama-cpp FOLDER'],
  specs,
  stopAtOperand: false,
};

/** Exit codes of a shell for what ends the script. */
const signals = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

process.exitCode = await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<number> {
  const controller = new AbortController();
  // npm passes on a signal that the terminal has sent too: the second must not end the script before its files are gone.
  for (const [name, code] of Object.entries(signals)) process.on(name, () => controller.abort(code));
  try {
    await run(args, controller.signal);
    return 0;
  } catch (error) {
    if (controller.signal.aborted) return controller.signal.reason;
    if (!(error instanceof NdsError)) throw error;
    process.stderr.write(`bench:peers: ${error.message} [${error.code}]\n`);
    return error.exitCode;
  }
}

async function run(args: readonly string[], signal: AbortSignal): Promise<void> {
  const line = parseOrHelp(shape, args);
  if (line === null) return;
  const { options, operands } = line;
  if (operands.length > 0) throw new NdsError('ERR_USAGE', `Expected no operands but received ${operands.join(' ')}`);
  const { format, quiet } = outputsOf(options);
  const llamaCpp = findLlamaCpp(options['llama-cpp'] ?? (process.env['NDS_LLAMA_CPP'] || null), process.env['PATH'] ?? '');
  const numThreads = options.threads ?? Math.floor(numUsableCores(readProcessors()));
  const chosen = options.shapes ?? defaultShapes;
  const folder = mkdtempSync(join(tmpdir(), 'nds-peers-'));
  try {
    const pairs: Pair[] = [];
    let build: PeerBuild | null = null;
    for (const name of chosen) {
      const shapeSizes = shapes[name] as Setting['shapeSizes'];
      const bar = openBar(`${name}: making weights`, 'bytes', quiet);
      const model = makeModel(name, folder, (done, total) => bar.update(done, total));
      bar.end();
      const defaults = sizesFor(bytesRead(shapeSizes, 'bf16'));
      const sizes = {
        promptLen: options['prompt-len'] ?? defaults.promptLen,
        numTokens: options['max-tokens'] ?? defaults.numTokens,
        depth: options.depth ?? defaults.depth,
        batchSizes: options['batch-sizes'] ?? defaults.batchSizes,
        numRepeats: options.repeats ?? defaults.numRepeats,
      };
      for (const one of options.formats ?? formats) {
        const setting = { shape: name, shapeSizes, format: one, model, folder, sizes, numThreads, llamaCpp, signal };
        const found = await measureSetting(setting, options.groups ?? groupNames, options.rounds ?? 3, quiet);
        pairs.push(...found.pairs);
        build ??= found.build;
      }
    }
    const run = describeRun('cpu', 1);
    process.stdout.write(render(compare(pairs, shapes, { numThreads, run, peerRun: peerRun(run, build) }), format));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** All rounds of a shape in a format. */
async function measureSetting(setting: Setting, groups: readonly (typeof groupNames)[number][], rounds: number, quiet: boolean) {
  const { shape, format } = setting;
  const writing = openBar(`${shape} ${format}: writing GGUF`, 'bytes', quiet);
  return withGguf(
    setting,
    (done, total) => writing.update(done, total),
    async (file) => {
      writing.end();
      const bar = openBar(`${shape} ${format}: measuring`, 'items', quiet);
      const pairs: Pair[] = [];
      let build: PeerBuild | null = null;
      for (let round = 0; round < rounds; round++) {
        const found = await measureRound(setting, file, groups, round);
        pairs.push(...found.pairs);
        build ??= found.build;
        bar.update(round + 1, rounds);
      }
      bar.end();
      return { pairs, build };
    },
  );
}

/** The same machine; which instructions llama.cpp uses, its build decides. */
function peerRun(run: BenchRun, build: PeerBuild | null): BenchRun {
  const machine = { ...run.machine, isa: 'as built' };
  return { ...run, engine: 'llama.cpp', version: build === null ? 'unknown' : `b${build.number}`, commit: build?.commit ?? null, machine };
}

function render(comparisons: readonly Comparison[], format: 'table' | 'json' | 'markdown'): string {
  const [first] = comparisons;
  if (format === 'json') return `${publicJson({ schema: first?.schema, comparisons })}\n`;
  if (first === undefined) return '';
  const { run, peerRun, numThreads, numRounds } = first;
  const lines = [
    `${run.engine} ${run.version} (${run.commit}), ${run.machine.isa}; ${peerRun.engine} ${peerRun.version} (${peerRun.commit})`,
    `${run.machine.processor}, ${run.machine.cores} cores, ${numThreads} threads each; medians of ${numRounds} pairs of runs`,
  ];
  const rows = rowsOf(comparisons);
  const body =
    format === 'markdown' ? [...lines.map((line) => `- ${line}`), '', ...markdownRows(rows)] : [...lines, '', ...alignedRows(rows)];
  return `${body.join('\n')}\n`;
}
