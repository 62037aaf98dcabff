/** Parsers of option values: from text and its source to a checked value or a usage error. */
import { type NdsError, unexpected } from '../protocol/errors.ts';

/** A choice of a rank's output streams. */
export interface StreamSet {
  readonly stdout: boolean;
  readonly stderr: boolean;
}

/** Streams of every local rank, or by local rank (none where absent). */
export type StreamMap = StreamSet | ReadonlyMap<number, StreamSet>;

function expected(what: string, where: string, text: string): NdsError {
  return unexpected('ERR_USAGE', what, where, text, (received) => `"${received}"`);
}

/** Any non-empty text. */
export function text(value: string, where: string): string {
  if (value === '') throw expected('a non-empty text', where, value);
  return value;
}

/** Any text, such as none. */
export function anyText(value: string): string {
  return value;
}

/** One of some names. */
export function oneOf<const T extends string>(...choices: readonly T[]): (value: string, where: string) => T {
  return (value, where) => {
    const choice = choices.find((each) => each === value);
    if (choice === undefined) throw expected(choices.join(', '), where, value);
    return choice;
  };
}

/** Distinct values, separated by commas. */
export function listOf<T>(parse: (value: string, where: string) => T): (value: string, where: string) => readonly T[] {
  return (value, where) => [...new Set(value.split(',').map((item) => parse(item, where)))];
}

/** How nodes meet, as torchrun names it. */
export function rendezvous(value: string, where: string): 'static' | 'c10d' {
  if (value !== 'static' && value !== 'c10d') throw expected('static or c10d', where, value);
  return value;
}

/** A switch: `true`, `1`, `false` or `0`. */
export function flag(value: string, where: string): boolean {
  if (value === 'true' || value === '1') return true;
  if (value === 'false' || value === '0') return false;
  throw expected('true, 1, false or 0', where, value);
}

/** An integer in `[minimum, maximum]`. */
export function integer(minimum: number, maximum: number = Number.MAX_SAFE_INTEGER): (value: string, where: string) => number {
  const range = maximum === Number.MAX_SAFE_INTEGER ? `of at least ${minimum}` : `from ${minimum} to ${maximum}`;
  return (value, where) => {
    const number = Number(value);
    if (!/^[+-]?\d+$/.test(value) || number < minimum || number > maximum) throw expected(`an integer ${range}`, where, value);
    return number;
  };
}

/** A number; the caller checks its range. */
export function number(value: string, where: string): number {
  const result = Number(value);
  if (value.trim() === '' || !Number.isFinite(result)) throw expected('a number', where, value);
  return result;
}

/** Seconds above 0 and at most 14 days, as milliseconds. */
export function seconds(value: string, where: string): number {
  const ms = Math.round(Number(value) * 1000);
  if (!/^\d+(\.\d+)?$/.test(value) || ms < 1 || ms > 14 * 86400e3) throw expected('seconds above 0', where, value);
  return ms;
}

/** A pause in seconds, as milliseconds; 0 = none. */
export function pause(value: string, where: string): number {
  if (/^0+(\.0+)?$/.test(value)) return 0;
  if (!/^\d+(\.\d+)?$/.test(value)) throw expected('seconds from 0', where, value);
  return seconds(value, where);
}

/** A number of ranks, or the rule that derives it. */
export function rankCount(value: string, where: string): number | 'auto' | 'gpu' | 'cpu' {
  if (value === 'auto' || value === 'gpu' || value === 'cpu') return value;
  if (!/^\d+$/.test(value) || Number(value) < 1 || Number(value) > 1024) throw expected('1 to 1024, auto, gpu or cpu', where, value);
  return Number(value);
}

/** A node count; `N:N`, as torchrun spells a fixed range, is N. */
export function nodeCount(value: string, where: string): number {
  const [, from, to] = /^(\d+)(?::(\d+))?$/.exec(value) ?? [];
  if (from === undefined || Number(from) < 1) throw expected('a number of nodes', where, value);
  if (to !== undefined && to !== from) throw expected(`a fixed number of nodes such as ${to}`, where, value);
  return Number(from);
}

/** `host:port`, `[v6]:port` or `host`. */
export function endpoint(value: string, where: string): { host: string; port: number | null } {
  const [, bracketed, host, port] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(value) ?? [];
  const name = bracketed ?? host;
  if (name === undefined) throw expected('HOST:PORT', where, value);
  return { host: name, port: port === undefined ? null : integer(0, 65535)(port, where) };
}

/** Ranks between commas: `0,2,3`. */
export function rankList(value: string, where: string): readonly number[] {
  return value.split(',').map((item) => {
    if (!/^\d+$/.test(item)) throw expected('local ranks such as 0,1', where, value);
    return Number(item);
  });
}

/** torchrun's `3` for every rank or `0:1,2:3` per local rank; 0 none, 1 stdout, 2 stderr, 3 both. */
export function streamMap(value: string, where: string): StreamMap {
  if (/^[0-3]$/.test(value)) return streamSet(value);
  const map = new Map<number, StreamSet>();
  for (const item of value.split(',')) {
    const [, rank, streams] = /^(\d+):([0-3])$/.exec(item) ?? [];
    if (rank === undefined || streams === undefined || map.has(Number(rank)))
      throw expected('0 to 3, or RANK:0-3 for each rank', where, value);
    map.set(Number(rank), streamSet(streams));
  }
  return map;
}

function streamSet(bits: string): StreamSet {
  return { stdout: (Number(bits) & 1) !== 0, stderr: (Number(bits) & 2) !== 0 };
}

/** The streams of one local rank. */
export function streamsOf(map: StreamMap, localRank: number): StreamSet {
  return map instanceof Map ? (map.get(localRank) ?? { stdout: false, stderr: false }) : (map as StreamSet);
}
