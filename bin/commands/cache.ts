/** `ndsrun cache`: lists the packed shards that loads keep, or removes them. */
import type { CommandShape, OptionSpec } from '../../launcher/command-line.ts';
import { flag } from '../../launcher/option-parsers.ts';
import { NdsError } from '../../protocol/errors.ts';
import { publicJson } from '../../protocol/public-json.ts';
import { clearRecords } from '../../rank/model/index.ts';
import { readShardCacheSettings } from '../../rank/shard-cache/settings.ts';
import { clearShards, dropAbandoned, type ListedShard, listShards, shardFolder } from '../../rank/shard-cache/store.ts';
import { parseOrHelp } from '../parse-or-help.ts';
import { bytesText } from '../progress-bar.ts';

const specs = {
  clear: { value: null, parse: flag, help: 'remove all shards, and the hashes of models' },
  json: { value: null, parse: flag, help: 'print JSON' },
} satisfies Record<string, OptionSpec<unknown>>;

const shape: CommandShape<typeof specs> = {
  usage: 'ndsrun cache [options]',
  description:
    'Lists the quantized shards that loads have packed and keep for the next: model, rank, formats, size and when each was used last. ' +
    'NDS_SHARD_CACHE (auto, on, off) says what is kept, NDS_SHARD_CACHE_SIZE (32GB) how much; those used longest ago go first. ' +
    'A model whose files change is packed again.',
  examples: ['ndsrun cache', 'ndsrun cache --clear'],
  specs,
  stopAtOperand: false,
};

/** @returns the exit code. */
export function cache(args: readonly string[]): number {
  const line = parseOrHelp(shape, args);
  if (line === null) return 0;
  const { options, operands } = line;
  if (operands.length > 0) throw new NdsError('ERR_USAGE', `Expected no operand but received ${operands.join(' ')}`);
  const folder = shardFolder();
  if (options.clear) {
    const removedBytes = clearShards();
    clearRecords();
    process.stdout.write(
      options.json ? `${publicJson({ folder, removedBytes })}\n` : `${bytesText(removedBytes)} removed from ${folder}\n`,
    );
    return 0;
  }
  dropAbandoned();
  const { maxBytes } = readShardCacheSettings();
  const shards = listShards();
  const bytes = shards.reduce((sum, shard) => sum + shard.bytes, 0);
  const text = options.json
    ? publicJson({ folder, bytes, maxBytes, shards: shards.map(asRow) }, 2)
    : [...shards.map(asLine), `${bytesText(bytes)} of at most ${bytesText(maxBytes)} in ${folder}`].join('\n');
  process.stdout.write(`${text}\n`);
  return 0;
}

function asRow({ name, bytes, usedAtMs, label }: ListedShard) {
  return { file: name, bytes, usedAt: new Date(usedAtMs).toISOString(), ...label };
}

function asLine(shard: ListedShard): string {
  const { bytes, usedAt, model, rank, worldSize, formats } = asRow(shard);
  const whose = model === undefined ? 'damaged' : `${model}  rank ${rank} of ${worldSize}  ${formats}`;
  return `${bytesText(bytes).padStart(8)}  ${usedAt.slice(0, 10)}  ${whose}`;
}
