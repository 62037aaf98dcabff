/** Child processes of a comparison: one at a time, each ended with the script. */
import { spawn } from 'node:child_process';
import { NdsError } from '../../../protocol/errors.ts';

export interface ChildOptions {
  readonly env: NodeJS.ProcessEnv;
  /** Ends the child and all that it started. */
  readonly signal: AbortSignal;
  /** What standard output has once the child has done what is timed; the end of the child when left out. */
  readonly mark?: RegExp;
}

export interface Ended {
  readonly stdout: string;
  /** From the start to `mark`. */
  readonly seconds: number;
}

/** Runs a program to its end. @throws NdsError `ERR_SYSTEM` where it cannot be started, fails or prints no `mark`. */
export async function runChild(program: string, args: readonly string[], { env, signal, mark }: ChildOptions): Promise<Ended> {
  signal.throwIfAborted();
  const start = performance.now();
  // A group of its own, so that one signal reaches all that it starts.
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  let [stdout, stderr, markedAt] = ['', '', Number.NaN];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    if (mark !== undefined && Number.isNaN(markedAt) && mark.test(stdout)) markedAt = performance.now();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const stop = () => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGTERM');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  };
  signal.addEventListener('abort', stop);
  try {
    const [code, endedBy] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, endedBy) => resolve([code, endedBy]));
    });
    signal.throwIfAborted();
    if (code !== 0) throw new Error(`${endedBy ?? `exit code ${code}`}: ${stderr.trim().split('\n').slice(-5).join('\n')}`);
    if (mark === undefined) markedAt = performance.now();
    else if (Number.isNaN(markedAt)) throw new Error(`no ${mark} in its output`);
    return { stdout, seconds: (markedAt - start) / 1000 };
  } catch (error) {
    signal.throwIfAborted();
    const message = error instanceof Error ? error.message : String(error);
    throw new NdsError('ERR_SYSTEM', `Expected ${[program, ...args].join(' ')} to succeed but received ${message}`, { cause: error });
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
