/** What the environment says of the cache of packed shards. Pure. */
import { NdsError } from '../../protocol/errors.ts';

type Environment = Readonly<Record<string, string | undefined>>;

export interface ShardCacheSettings {
  /** `auto` = quantized shards of at least `minAutoBytes`; `on` = every shard. */
  readonly mode: 'auto' | 'on' | 'off';
  /** Max bytes of all files. */
  readonly maxBytes: number;
}

/** Bytes of a shard that is packed again in less time than its file is worth. */
export const minAutoBytes = 64e6;

const units: Readonly<Record<string, number>> = { B: 1, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 };

/** @throws NdsError `ERR_USAGE` for a bad `NDS_SHARD_CACHE` or `NDS_SHARD_CACHE_SIZE`. */
export function readShardCacheSettings(env: Environment = process.env): ShardCacheSettings {
  const mode = env['NDS_SHARD_CACHE'] || 'auto';
  if (mode !== 'auto' && mode !== 'on' && mode !== 'off')
    throw new NdsError('ERR_USAGE', `Expected auto, on or off for NDS_SHARD_CACHE but received "${mode}"`);
  const size = env['NDS_SHARD_CACHE_SIZE'] || '32GB';
  const [, number, unit = 'B'] = /^(\d+(?:\.\d+)?) ?([kMGT]?B)?$/i.exec(size) ?? [];
  if (number === undefined) throw new NdsError('ERR_USAGE', `Expected a size such as 32GB for NDS_SHARD_CACHE_SIZE but received "${size}"`);
  return { mode, maxBytes: Math.floor(Number(number) * (units[unit.toUpperCase()] ?? 1)) };
}
