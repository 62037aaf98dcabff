/** Writes this rank's trace while it runs: to a part that is joined with those of other ranks, or to a whole file. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import { NdsError } from '../../protocol/errors.ts';
import type { RankEnv } from '../../protocol/rank-env.ts';
import type { StepResult } from '../../protocol/step-result.ts';
import { joinTrace, traceFooter, traceHeader, tracePart } from '../../protocol/trace-file.ts';
import type { OpSpec } from '../program-spec.ts';
import { engineThread, executorSpans, formatNames, formatSpan, groupPrograms, type Span, type TraceGroup } from './trace-events.ts';

/** Records spans of a rank's work. */
export interface Trace {
  /** If false, native code need not time operators. */
  readonly isOn: boolean;
  /** Records `body` as a span on the engine's thread; returns its result. */
  time<T>(name: string, body: () => T): T;
  /** Sets the programs whose operators steps refer to; `draftOps` is empty without a draft model. */
  program(ops: readonly OpSpec[], draftOps: readonly OpSpec[]): void;
  /** Records an executor step, and flushes everything to the file. */
  step(step: number, result: StepResult): void;
  close(): void;
}

/** Records nothing. */
export const noTrace: Trace = { isOn: false, time: (_, body) => body(), program() {}, step() {}, close() {} };

/**
 * Opens the trace of this load.
 * @param file joined trace of all ranks; null = none, unless the launcher joins one
 * @throws NdsError `ERR_USAGE` for a file that cannot be written, when the launcher has a trace file too, or where other
 * ranks may be started anew, whose parts only the launcher finds.
 */
export function openTrace(file: string | null, env: RankEnv | null): Trace {
  const isLaunched = env !== null && env.traceFile !== '';
  if (file === null) return isLaunched ? openPart(env) : noTrace;
  if (isLaunched) {
    throw new NdsError('ERR_USAGE', `Expected no load option trace beside ndsrun --trace ${env.traceFile} but received ${file}`);
  }
  if (env !== null && env.worldSize > 1 && env.maxRestarts > 0) {
    throw new NdsError(
      'ERR_USAGE',
      `Expected ndsrun --trace with --max-restarts ${env.maxRestarts} but received the load option trace ${file}`,
    );
  }
  const path = resolve(file);
  const whole = openForWriting(path, 'w');
  if (env === null || env.worldSize === 1) {
    writeAt(whole, Buffer.from(traceHeader), 0);
    return new FileTrace(0, whole, traceHeader.length, traceFooter, () => {});
  }
  closeSync(whole);
  const join = () => joinTrace([env.runDir], env.worldSize, path);
  join();
  process.once('exit', join);
  return openPart(env, () => {
    process.off('exit', join);
    join();
  });
}

/** Opens this rank's part of a trace; `onClose` runs when it is complete. */
export function openPart(env: RankEnv, onClose: () => void = () => {}): Trace {
  // The launcher's trace spans all loads, a load option's only its own.
  const flags = env.traceFile === '' ? 'w' : 'a';
  return new FileTrace(env.rank, openForWriting(tracePart(env.runDir, env.rank), flags), 0, '', onClose);
}

function openForWriting(path: string, flags: 'w' | 'a'): number {
  try {
    return openSync(path, flags);
  } catch (error) {
    throw new NdsError('ERR_USAGE', `Expected a writable file for the trace but received ${path}: ${(error as Error).message}`);
  }
}

/** Writes a file that is valid after every flush: a part in whole lines, a whole file with its footer. */
class FileTrace implements Trace {
  readonly isOn = true;
  readonly #rank: number;
  readonly #file: number;
  readonly #footer: string;
  readonly #onClose: () => void;
  #position: number;
  #lines = '';
  #groups: readonly TraceGroup[] = [];
  #isClosed = false;

  constructor(rank: number, file: number, position: number, footer: string, onClose: () => void) {
    this.#rank = rank;
    this.#file = file;
    this.#position = position;
    this.#footer = footer;
    this.#onClose = onClose;
    this.#lines = formatNames(rank);
    this.#flush();
  }

  time<T>(name: string, body: () => T): T {
    const start = monotonicSeconds();
    const result = body();
    this.#add({ name, thread: engineThread, start, end: monotonicSeconds() });
    return result;
  }

  program(ops: readonly OpSpec[], draftOps: readonly OpSpec[]): void {
    this.#groups = groupPrograms(ops, draftOps);
  }

  step(step: number, result: StepResult): void {
    for (const span of executorSpans(step, result, this.#groups)) this.#add(span);
    this.#flush();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#flush();
    this.#isClosed = true;
    closeSync(this.#file);
    this.#onClose();
  }

  #add(span: Span): void {
    this.#lines += formatSpan(this.#rank, span);
  }

  /** Writes the footer each time; the next flush overwrites it. */
  #flush(): void {
    if (this.#isClosed) return;
    const lines = Buffer.from(this.#lines);
    this.#lines = '';
    writeAt(this.#file, Buffer.concat([lines, Buffer.from(this.#footer)]), this.#position);
    this.#position += lines.length;
  }
}

function writeAt(file: number, bytes: Uint8Array, position: number): void {
  for (let written = 0; written < bytes.length; ) {
    written += writeSync(file, bytes, written, bytes.length - written, position + written);
  }
}

/** Seconds on the host-wide monotonic clock of native code's step timings. */
export function monotonicSeconds(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds + nanoseconds / 1e9;
}
