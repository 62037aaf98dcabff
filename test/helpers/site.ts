/** Where faults of one node are made: a host of its own where namespaces are allowed, else a folder of this machine. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { Test } from 'tap';
import { Hosts, noHosts, type Place } from './hosts.ts';
import { Running, type StartOptions } from './launcher.ts';
import { describeProcesses, leftAfter, markedProcesses, newMark } from './leaks.ts';

export interface Site {
  readonly place: Place;
  /** What is left, once nothing is or `timeoutMs` have passed: processes and files; on a host also listeners. */
  leaks(timeoutMs?: number): Promise<string[]>;
}

/** Opens a site that lasts as long as the test. */
export async function openSite(t: Test): Promise<Site> {
  if (noHosts !== null) return openFolder(t);
  const hosts = await Hosts.open(1);
  t.teardown(() => hosts.close());
  return { place: hosts.get(0), leaks: (timeoutMs) => hosts.leaks(timeoutMs) };
}

/** A folder on disk, e.g. for more output than fits into memory. */
export function openFolder(t: Test): Site {
  const tmp = mkdtempSync('/tmp/t-');
  t.teardown(() => rmSync(tmp, { recursive: true, force: true }));
  const place: Place = { enter: () => [], tmp, mark: newMark() };
  const find = () => [...describeProcesses(markedProcesses(place.mark)), ...readdirSync(tmp).filter((name) => name.startsWith('nds'))];
  return { place, leaks: (timeoutMs = 10_000) => leftAfter(find, timeoutMs) };
}

export function startAt(site: Site, args: readonly string[], options: StartOptions = {}): Running {
  return new Running(args, { ...options, place: site.place });
}

/** Fails with what the launcher printed. */
export async function expectExit(t: Test, running: Running, code: number, stderr: readonly RegExp[] = []): Promise<void> {
  const ended = await running.ended();
  if (ended.code !== code) t.comment(`${ended.stdout.slice(-4000)}${ended.stderr.slice(-4000)}`);
  t.equal(ended.code, code, 'exit code');
  for (const pattern of stderr) t.match(ended.stderr, pattern);
}

/** A moment of the next `maxMs`, so that repetitions meet a gang in many states. */
export function randomMoment(maxMs: number): Promise<void> {
  return delay(Math.random() * maxMs);
}

/** Seconds since `start`, of `performance.now()`. */
export function secondsSince(start: number): number {
  return (performance.now() - start) / 1000;
}
