/** `ndsrun models`: lists the shipped models and those of the cache; `ndsrun models rm NAME` removes one of the cache. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CommandShape, OptionSpec } from '../../launcher/command-line.ts';
import { flag } from '../../launcher/option-parsers.ts';
import { NdsError } from '../../protocol/errors.ts';
import { publicJson } from '../../protocol/public-json.ts';
import { type ListedModel, listModels, removeModel } from '../../rank/hub/list-models.ts';
import { readModel } from '../../rank/model/index.ts';
import { parseOrHelp } from '../parse-or-help.ts';
import { bytesText } from '../progress-bar.ts';

const specs = {
  json: { value: null, parse: flag, help: 'print JSON' },
} satisfies Record<string, OptionSpec<unknown>>;

const shape: CommandShape<typeof specs> = {
  usage: 'ndsrun models [options] [rm ORG/NAME]',
  description:
    'Lists the models that are shipped (nds:…) and those of the Hugging Face cache with all their weights: size, dtype, family and when a file was read last; ' +
    '--json also says why one is unsupported or broken. `rm` removes a model with all its revisions from the cache.',
  examples: ['ndsrun models', 'ndsrun models rm Qwen/Qwen3-0.6B'],
  specs,
  stopAtOperand: false,
};

/** @returns the exit code. */
export async function models(args: readonly string[]): Promise<number> {
  const line = parseOrHelp(shape, args);
  if (line === null) return 0;
  const { options, operands } = line;
  const [action, name, extra] = operands;
  if (action === undefined) {
    const rows = listModels().map(describe);
    process.stdout.write(options.json ? `${publicJson(rows, 2)}\n` : `${table(rows)}\n`);
    return 0;
  }
  if (action !== 'rm' || name === undefined || extra !== undefined)
    throw new NdsError('ERR_USAGE', `Expected nothing or rm ORG/NAME but received ${operands.join(' ')}`);
  const removedBytes = removeModel(name);
  process.stdout.write(options.json ? `${publicJson({ name, removedBytes })}\n` : `${name} removed, ${bytesText(removedBytes)}\n`);
  return 0;
}

interface Row extends ListedModel {
  /** Of the weights; `unsupported` or `broken` for a model that cannot be loaded. */
  readonly dtype: string;
  readonly family: string | null;
  /** Why it cannot be loaded; null if it can. */
  readonly problem: string | null;
}

function describe(model: ListedModel): Row {
  const family = familyOf(model.folder);
  try {
    return { ...model, dtype: readModel(model.folder).storedDtype, family, problem: null };
  } catch (error) {
    if (!(error instanceof NdsError)) throw error;
    return { ...model, dtype: error.code === 'ERR_UNSUPPORTED' ? 'unsupported' : 'broken', family, problem: error.message };
  }
}

/** `model_type` of config.json; null for one that says none. */
function familyOf(folder: string): string | null {
  try {
    const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as { model_type?: unknown } | null;
    return typeof config?.model_type === 'string' ? config.model_type : null;
  } catch (error) {
    if (error instanceof SyntaxError) return null; // `problem` says so
    throw error;
  }
}

function table(rows: readonly Row[]): string {
  const cells = rows.map(({ name, bytes, dtype, family, usedAt }) => {
    return [name, bytesText(bytes), dtype, family ?? '', usedAt?.slice(0, 10) ?? ''];
  });
  const lines = [['model', 'size', 'dtype', 'family', 'used'], ...cells];
  const widths = [0, 1, 2, 3, 4].map((i) => Math.max(...lines.map((line) => line[i]?.length ?? 0)));
  return lines
    .map((line) =>
      line
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
