/** Output of the ranks: console, log files, and the tail kept for a report. */
import { fstatSync } from 'node:fs';
import { constants } from 'node:os';
import type { Readable, Writable } from 'node:stream';
import { exitCodes } from '../protocol/errors.ts';
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

/** The exit code of a program that SIGPIPE ends. */
const unreadCode = 128 + constants.signals.SIGPIPE;

export class Output {
  readonly #options: LaunchOptions;
  readonly #consoles: Readonly<Record<StreamName, Console>>;
  readonly #logs: LogFiles | null;
  readonly #tails = new Map<number, Tail>();
  readonly #shown: Readonly<Record<StreamName, Set<number>>> = { stdout: new Set(), stderr: new Set() };
  readonly #notices: Speaker = { prefix: Buffer.from('[ndsrun] ') };
  readonly #onUnread: () => void;
  #exitCode = 0;

  /** `onUnread` is called when nobody can read standard output any more and no file takes it either. */
  constructor(options: LaunchOptions, runId: string, onUnread: () => void) {
    this.#options = options;
    this.#onUnread = onUnread;
    this.#consoles = openConsoles((error) => this.#lost(error));
    const hasFiles = options.logDir !== null || options.redirects instanceof Map || options.tee instanceof Map || usesStreams(options);
    this.#logs = hasFiles ? new LogFiles(options.logDir, runId, (message) => this.notice(message)) : null;
    if (this.#logs !== null) this.notice(`logs are in ${this.#logs.folder}`);
  }

  /** Consumes both streams of a rank until they close; null = the rank has the terminal itself. Files are of an epoch. */
  attach(plan: RankPlan, routes: Routes, streams: Readonly<Record<StreamName, Readable | null>>, epoch: number): Promise<void> {
    const tail = new Tail();
    this.#tails.set(plan.rank, tail);
    const names: StreamName[] = ['stdout', 'stderr'];
    const ends = names.map((name) => {
      if (routes[name].isShown) this.#shown[name].add(plan.rank);
      const stream = streams[name];
      if (stream === null) return Promise.resolve();
      const log = routes[name].isLogged ? (this.#logs?.open(epoch, plan.localRank, name) ?? null) : null;
      return this.#relay(plan, name, routes[name], stream, log, name === 'stderr' ? tail : null);
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

  /** Exit code of a job that is well but for its standard output: 0, 141 when nobody wants it, 70 when it was lost. */
  get exitCode(): number {
    return this.#exitCode;
  }

  /** Resolves when everything is written, or the readers are gone. */
  async close(): Promise<void> {
    await this.#logs?.close();
    await Promise.all([this.#consoles.stdout.drained(), this.#consoles.stderr.drained()]);
  }

  /**
   * Standard output takes no more. Its reader has left: the job ends, unless files have its output. A terminal is gone
   * (`EIO`): SIGHUP tells, or does not where the job is to outlive it. Else, e.g. a full disk: the job goes on.
   */
  #lost(error: NodeJS.ErrnoException): void {
    if (error.code === 'EIO') return;
    if (error.code !== 'EPIPE') {
      this.#exitCode = exitCodes.ERR_SYSTEM;
      this.notice(`could not write standard output, which ends here: ${error.message}; the job goes on`);
    } else if (this.#logs !== null) {
      this.notice('nobody reads standard output any more; the job goes on, and its output to the files');
    } else {
      this.#exitCode = unreadCode;
      this.#onUnread();
    }
  }

  #relay(
    plan: RankPlan,
    name: StreamName,
    { isShown, isRaw }: Route,
    stream: Readable,
    log: Writable | null,
    tail: Tail | null,
  ): Promise<void> {
    const prefix = Buffer.from(isRaw ? '' : prefixOf(this.#options, plan));
    const relay = isShown ? new Relay(this.#consoles[name], { prefix }, isRaw) : null;
    return new Promise((resolve) => {
      stream.on('data', (chunk: Buffer) => {
        if (log !== null) writeLog(log, chunk, stream);
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

/** A rank waits for its log file as if it wrote the file itself, or the launcher would hold what the disk does not take. */
function writeLog(log: Writable, chunk: Buffer, source: Readable): void {
  if (log.destroyed || log.write(chunk)) return;
  source.pause();
  const resume = (): void => {
    log.off('drain', resume).off('close', resume);
    source.resume();
  };
  log.once('drain', resume).once('close', resume);
}

/**
 * One console for both streams where both lead to the same place, so that their lines do not interleave. `onLost` is told
 * why standard output ended; messages that standard error does not take are lost.
 */
function openConsoles(onLost: (error: NodeJS.ErrnoException) => void): Record<StreamName, Console> {
  const [out, err] = [fstatSync(1), fstatSync(2)];
  const stdout = new Console(new FdWriter(1, onLost));
  const isSame = out.dev === err.dev && out.ino === err.ino && out.rdev === err.rdev;
  return { stdout, stderr: isSame ? stdout : new Console(new FdWriter(2, () => {})) };
}

function usesStreams({ redirects, tee }: LaunchOptions): boolean {
  return [redirects, tee].some((map) => !(map instanceof Map) && (streamsOf(map, 0).stdout || streamsOf(map, 0).stderr));
}
