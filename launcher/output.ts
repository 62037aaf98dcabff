/** Output of the ranks: console, log files, and the tail kept for a report. */
import { fstatSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { Console, type Speaker } from './console.ts';
import { FdWriter } from './fd-writer.ts';
import { LineBuffer } from './line-buffer.ts';
import { LogFiles, type StreamName } from './log-files.ts';
import { streamsOf } from './option-parsers.ts';
import type { LaunchOptions } from './options.ts';
import type { RankPlan } from './plan.ts';
import { Tail } from './tail.ts';
import { prefixOf, type Route, type Routes } from './terminal.ts';

/** How long a partial line may wait for its newline. */
const partialLineMs = 200;

export class Output {
  readonly #options: LaunchOptions;
  readonly #consoles: Readonly<Record<StreamName, Console>>;
  readonly #logs: LogFiles | null;
  readonly #tails = new Map<number, Tail>();
  readonly #shown: Readonly<Record<StreamName, Set<number>>> = { stdout: new Set(), stderr: new Set() };
  readonly #notices: Speaker = { prefix: Buffer.from('[ndsrun] ') };

  constructor(options: LaunchOptions, runId: string) {
    this.#options = options;
    this.#consoles = openConsoles();
    const hasFiles = options.logDir !== null || options.redirects instanceof Map || options.tee instanceof Map || usesStreams(options);
    this.#logs = hasFiles ? new LogFiles(options.logDir, runId, (message) => this.notice(message)) : null;
    if (this.#logs !== null) this.notice(`logs are in ${this.#logs.folder}`);
  }

  /** Consumes both streams of a rank until they close; null = the rank has the terminal itself. */
  attach(plan: RankPlan, routes: Routes, streams: Readonly<Record<StreamName, Readable | null>>): Promise<void> {
    const tail = new Tail();
    this.#tails.set(plan.rank, tail);
    const names: StreamName[] = ['stdout', 'stderr'];
    const ends = names.map((name) => {
      if (routes[name].isShown) this.#shown[name].add(plan.rank);
      const stream = streams[name];
      return stream === null ? Promise.resolve() : this.#relay(plan, name, routes[name], stream, name === 'stderr' ? tail : null);
    });
    return Promise.all(ends).then(() => undefined);
  }

  /** Writes a line of the launcher's own to standard error. */
  notice(line: string): void {
    this.#consoles.stderr.write(this.#notices, [Buffer.from(`${line}\n`)]);
  }

  /** Whether the console shows a stream of a rank. */
  shows(rank: number, name: StreamName): boolean {
    return this.#shown[name].has(rank);
  }

  /** The last lines that a rank wrote to its standard error. */
  tail(rank: number): string[] {
    return this.#tails.get(rank)?.lines() ?? [];
  }

  /** Resolves when everything is written, or the readers are gone. */
  async close(): Promise<void> {
    await this.#logs?.close();
    await Promise.all([this.#consoles.stdout.drained(), this.#consoles.stderr.drained()]);
  }

  #relay(plan: RankPlan, name: StreamName, { isShown, isLogged, isRaw }: Route, stream: Readable, tail: Tail | null): Promise<void> {
    const log = isLogged ? (this.#logs?.open(plan.localRank, name) ?? null) : null;
    const prefix = Buffer.from(isRaw ? '' : prefixOf(this.#options, plan));
    const relay = isShown ? new Relay(this.#consoles[name], { prefix }, isRaw) : null;
    return new Promise((resolve) => {
      stream.on('data', (chunk: Buffer) => {
        log?.write(chunk);
        tail?.push(chunk);
        relay?.push(chunk);
      });
      // A reset or a forced end emits `close` without `end`.
      stream.on('error', () => {});
      stream.on('close', () => {
        relay?.end();
        resolve();
      });
    });
  }
}

/** One stream of one rank on its way to the console. */
class Relay {
  readonly #console: Console;
  readonly #speaker: Speaker;
  readonly #isRaw: boolean;
  readonly #lines = new LineBuffer();
  #timer: NodeJS.Timeout | null = null;

  constructor(console: Console, speaker: Speaker, isRaw: boolean) {
    this.#console = console;
    this.#speaker = speaker;
    this.#isRaw = isRaw;
  }

  push(chunk: Buffer): void {
    if (this.#isRaw) return this.#console.write(this.#speaker, [chunk]);
    this.#console.write(this.#speaker, this.#lines.push(chunk));
    // A line already on the screen continues at once, so that streamed text stays fluent.
    if (this.#console.isOpenFor(this.#speaker)) this.#flush(false);
    else if (this.#lines.hasPartial) this.#timer ??= setTimeout(() => this.#flush(false), partialLineMs);
  }

  end(): void {
    this.#flush(true);
    if (!this.#isRaw && this.#console.isOpenFor(this.#speaker)) this.#console.write(this.#speaker, [Buffer.from('\n')]);
  }

  #flush(isEnd: boolean): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#console.write(this.#speaker, [this.#lines.takePartial(isEnd)]);
  }
}

/** One console for both streams where both lead to the same place, so that their lines do not interleave. */
function openConsoles(): Record<StreamName, Console> {
  const [out, err] = [fstatSync(1), fstatSync(2)];
  const stdout = new Console(new FdWriter(1));
  const isSame = out.dev === err.dev && out.ino === err.ino && out.rdev === err.rdev;
  return { stdout, stderr: isSame ? stdout : new Console(new FdWriter(2)) };
}

function usesStreams({ redirects, tee }: LaunchOptions): boolean {
  return [redirects, tee].some((map) => !(map instanceof Map) && (streamsOf(map, 0).stdout || streamsOf(map, 0).stderr));
}
