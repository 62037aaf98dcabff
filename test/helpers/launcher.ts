/** Runs the real ndsrun, waits for its output, and finds the files that it leaves behind. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compiledFolder } from '../../bin/compiled.mjs';
import { findPackageRoot } from '../../native/tools/sources.mjs';
import type { Place } from './hosts.ts';
import { spawnTied } from './tied-process.ts';

/** ndsrun of the checkout. */
export const executable = join(findPackageRoot(), 'bin', 'ndsrun.js');
const compiled = await compiledFolder();

/** Path of a script under test/fixtures/scripts, compiled: it starts sooner. */
export function fixture(name: string): string {
  return join(compiled, 'test', 'fixtures', 'scripts', name.replace(/\.ts$/, '.js'));
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface StartOptions {
  readonly env?: Readonly<NodeJS.ProcessEnv>;
  /** Standard input; `open` = what the test writes to it. */
  readonly input?: string;
  readonly cwd?: string;
  /** A command that runs the command after it, such as one that mounts a file system first. */
  readonly prefix?: readonly string[];
  /** Where it runs: one of several hosts, whose own checks find what is left. Beside the test when left out. */
  readonly place?: Place;
}

/** A running ndsrun with its own temporary folder, or with that of its place. */
export class Running {
  readonly child: ChildProcess;
  readonly #tmp: string | null;
  readonly #closed: Promise<void>;
  #leftovers: string[] = [];
  #stdout = '';
  #stderr = '';

  constructor(args: readonly string[], { env = {}, input, cwd, place, prefix = [] }: StartOptions = {}) {
    const stdin = input === undefined ? 'ignore' : 'pipe';
    this.#tmp = place === undefined ? makeTemporaryFolder() : null;
    const own = { TMPDIR: this.#tmp ?? place?.tmp, ...place?.mark };
    // tap instruments child processes by NODE_OPTIONS, which changes exit codes: `env` removes it.
    const command = [
      ...(place?.enter(cwd ?? process.cwd()) ?? []),
      'env',
      '-u',
      'NODE_OPTIONS',
      ...prefix,
      process.execPath,
      executable,
      ...args,
    ];
    this.child = spawnTied(command[0] as string, command.slice(1), {
      env: { ...cleanEnvironment(), ...own, ...env },
      stdio: [stdin, 'pipe', 'pipe'],
      cwd,
    });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text;
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
    if (input !== 'open') this.child.stdin?.end(input);
    this.#closed = once(this.child, 'close').then(() => {
      if (this.#tmp === null) return;
      this.#leftovers = readdirSync(this.#tmp).filter((name) => name.startsWith('nds'));
      rmSync(this.#tmp, { recursive: true });
    });
  }

  get stdout(): string {
    return this.#stdout;
  }

  /** Resolves with the match once one of its outputs contains it, from a position on. */
  async printed(pattern: RegExp, stream: 'stdout' | 'stderr' = 'stdout', from = 0): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec((stream === 'stdout' ? this.#stdout : this.#stderr).slice(from));
      if (match !== null) return match;
      if (this.child.exitCode !== null || this.child.signalCode !== null)
        throw new Error(`ended before ${pattern}: ${this.#stdout}${this.#stderr}`);
      await Promise.race([once(this.child[stream] as NodeJS.ReadableStream, 'data'), once(this.child, 'close')]);
    }
  }

  /** Process ids of the ranks that printed `ready`, by rank. */
  async ranks(numRanks: number): Promise<number[]> {
    const pids: number[] = [];
    for (let rank = 0; rank < numRanks; rank++) pids.push(Number((await this.printed(new RegExp(`ready ${rank} (\\d+)\\n`)))[1]));
    return pids;
  }

  async ended(): Promise<Ended> {
    await this.#closed;
    return { code: this.child.exitCode, signal: this.child.signalCode, stdout: this.#stdout, stderr: this.#stderr };
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** Run folders and spools that were left in its own temporary folder at the end. */
  leftovers(): string[] {
    return this.#leftovers;
  }
}

/** Short, as the paths of sockets below it are limited; the TypeScript loader's cache is shared. */
function makeTemporaryFolder(): string {
  const folder = mkdtempSync('/tmp/t-');
  const cache = `tsx-${process.getuid?.()}`;
  mkdirSync(join(tmpdir(), cache), { recursive: true });
  symlinkSync(join(tmpdir(), cache), join(folder, cache));
  return folder;
}

/** Runs to the end; throws when a file was left behind. */
export async function ndsrun(args: readonly string[], options?: StartOptions): Promise<Ended> {
  const running = new Running(args, options);
  const ended = await running.ended();
  const leftovers = running.leftovers();
  if (leftovers.length > 0) throw new Error(`left behind: ${leftovers.join(', ')}`);
  return ended;
}

/** The environment without variables of another launcher, such as tap. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const foreign =
    /^(NDS_|PET_|LWS_|SLURM_|TORCHELASTIC_|NODE_OPTIONS|OMP_NUM_THREADS|RANK$|WORLD_SIZE$|JOB_COMPLETION_INDEX|CUDA_VISIBLE_DEVICES)/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !foreign.test(name)));
}

/** Whether a process runs; a zombie does not. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  if (process.platform !== 'linux') return true;
  try {
    return !/\) Z /.test(readFileSync(join('/proc', String(pid), 'stat'), 'utf8'));
  } catch {
    return false;
  }
}

/** Resolves when none of the processes runs; only the test's own timeout limits the wait. */
export async function allGone(pids: readonly number[]): Promise<void> {
  while (pids.some(isAlive)) await new Promise((resolve) => setTimeout(resolve, 10));
}
