/** Which files of the cache go: the ones used longest ago, and what killed writers left. Pure. */

/** A file of the cache. */
export interface CacheFile {
  readonly name: string;
  readonly bytes: number;
  /** When it was written or used last; milliseconds since 1970. */
  readonly usedAtMs: number;
}

/** A file that is being written, named by its writer. */
export interface Writer {
  readonly host: string;
  readonly pid: number;
}

/** No write is silent for so long, also where the writer runs on another host. */
const silentMs = 3600e3;

/**
 * Names of the files that go so that at most `maxBytes` stay, those used longest ago first.
 * @param kept - name of one that stays
 */
export function chooseEvicted(files: readonly CacheFile[], maxBytes: number, kept: string): string[] {
  const others = files.filter(({ name }) => name !== kept).sort((a, b) => b.usedAtMs - a.usedAtMs || (a.name < b.name ? -1 : 1));
  let left = maxBytes - (files.find(({ name }) => name === kept)?.bytes ?? 0);
  let isFull = false;
  return others
    .filter(({ bytes }) => {
      isFull ||= bytes > left;
      if (!isFull) left -= bytes;
      return isFull;
    })
    .map(({ name }) => name)
    .reverse();
}

export function temporaryName(entry: string, { host, pid }: Writer, unique: string): string {
  return `${entry}.${encodeURIComponent(host)}.${pid}.${unique}.tmp`;
}

/** The writer of a temporary file; null for another name. */
export function writerOf(name: string): Writer | null {
  const [, host, pid] = /^[0-9a-f]{64}\.shard\.([^/]+)\.(\d+)\.[0-9a-f-]+\.tmp$/.exec(name) ?? [];
  return host === undefined ? null : { host: decodeURIComponent(host), pid: Number(pid) };
}

/** Whether a temporary file's writer has left it. */
export function isAbandoned(file: CacheFile, here: string, nowMs: number, isAlive: (pid: number) => boolean): boolean {
  const writer = writerOf(file.name);
  if (writer === null) return false;
  return nowMs - file.usedAtMs > silentMs || (writer.host === here && !isAlive(writer.pid));
}
