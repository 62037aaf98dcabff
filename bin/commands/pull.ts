/** `ndsrun pull ORG/NAME[@REVISION]`: downloads a model into Python's cache. */
import type { CommandShape, OptionSpec } from '../../launcher/command-line.ts';
import { flag } from '../../launcher/option-parsers.ts';
import { NdsError } from '../../protocol/errors.ts';
import { readHubSettings } from '../../rank/hub/hub-settings.ts';
import { parseModelName } from '../../rank/hub/model-name.ts';
import { pullModel } from '../../rank/hub/pull.ts';
import { parseOrHelp } from '../parse-or-help.ts';
import { DownloadBars } from './resolve-models.ts';

const specs = {
  quiet: { value: null, parse: flag, help: 'no progress on standard error' },
} satisfies Record<string, OptionSpec<unknown>>;

const shape: CommandShape<typeof specs> = {
  usage: 'ndsrun pull [options] ORG/NAME[@REVISION]',
  description:
    'Downloads what a load reads of a model on the Hugging Face hub: config, tokenizer and safetensors. Goes on where an earlier download ended, checks every hash, ' +
    'and prints the folder. The cache is that of Python: HF_HUB_CACHE, HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean there.',
  examples: ['ndsrun pull Qwen/Qwen3-0.6B', 'ndsrun pull Qwen/Qwen3-0.6B@main'],
  specs,
  stopAtOperand: false,
};

/** @returns the exit code. */
export async function pull(args: readonly string[]): Promise<number> {
  const line = parseOrHelp(shape, args);
  if (line === null) return 0;
  const { options, operands } = line;
  const [model, extra] = operands;
  if (model === undefined || extra !== undefined)
    throw new NdsError('ERR_USAGE', `Expected one ORG/NAME or ORG/NAME@REVISION but received ${operands.length} operands`);
  const name = parseModelName(model);
  if (name.type !== 'hub') throw new NdsError('ERR_USAGE', `Expected ORG/NAME or ORG/NAME@REVISION but received ${model}`);
  const bars = new DownloadBars(options.quiet ? null : process.stderr);
  const folder = await bars.during((onProgress) => pullModel(name, readHubSettings(), onProgress));
  process.stdout.write(`${folder}\n`);
  return 0;
}
