/** One rank as a process: its own process group, piped output, four inherited descriptors. */
import { EventEmitter } from 'node:events';
import type { Duplex, Readable } from 'node:stream';
import { execa, type Options, type ResultPromise } from 'execa';
import { ControlReader, encodeControl, type ToLauncher, type ToRank } from '../protocol/control.ts';
import { toNdsError } from '../protocol/errors.ts';
import type { RankExit } from './agent-messages.ts';
import type { StreamName } from './log-files.ts';
import { type RankPlan, controlFd as rankControlFd, shmFd as rankShmFd, stateFd as rankStateFd, watchFd as rankWatchFd } from './plan.ts';
import type { Routes } from './terminal.ts';

/** How long a rank's output may stay open after its end, held by processes that left its group. */
const outputGraceMs = 500;

type Child = ResultPromise<{ reject: false; buffer: false }>;

/** Emits `message` for what the rank tells its launcher. One that breaks the protocol ends the rank. */
export class RankProcess extends EventEmitter<{ exit: [RankExit]; message: [ToLauncher] }> {
  readonly plan: RankPlan;
  readonly #child: Child;
  #exit: RankExit | null = null;

  /** Starts the rank. Must be called on the main thread: a parent-death signal belongs to the thread that forked. */
  constructor(plan: RankPlan, shmFd: number, stateFd: number, routes: Routes) {
    super();
    this.plan = plan;
    this.#child = spawn(plan, shmFd, stateFd, routes);
    this.#listen();
    this.#child.on('exit', (exitCode, signal) => this.#ended(exitCode, signal, null));
    // Of execa's promise only a failure to start counts: exits come by the event above.
    this.#child.then(({ failed, cause }) => {
      if (!failed || this.#child.pid !== undefined) return;
      const { code, message } = cause instanceof Error ? (cause as NodeJS.ErrnoException) : {};
      this.#ended(null, null, { code: code ?? null, message: message ?? `could not start ${plan.command}` });
    });
  }

  /** Tells the rank something; no-op once it has ended. A rank that runs no code of ours never reads it. */
  send(message: ToRank): void {
    this.#control?.write(encodeControl(message));
  }

  get pid(): number | null {
    return this.#child.pid ?? null;
  }

  /** The rank's exit; `null` while it runs. */
  get exit(): RankExit | null {
    return this.#exit;
  }

  /** Null where the rank has the terminal itself. */
  get streams(): Readonly<Record<StreamName, Readable | null>> {
    const { stdout, stderr } = this.#child as { stdout: Readable | null; stderr: Readable | null };
    return { stdout: stdout ?? null, stderr: stderr ?? null };
  }

  /** Signals the whole process group; a group that is gone is ignored. */
  kill(signal: NodeJS.Signals): void {
    if (this.pid === null || this.#exit !== null) return;
    signalGroup(this.pid, signal);
  }

  get #control(): Duplex | undefined {
    return (this.#child.stdio as readonly unknown[])[rankControlFd] as Duplex | undefined;
  }

  #listen(): void {
    const reader = ControlReader.ofLauncher();
    this.#control?.on('data', (chunk: Buffer) => {
      try {
        for (const message of reader.push(chunk)) this.emit('message', message);
      } catch (error) {
        this.#control?.destroy(toNdsError(error));
        this.kill('SIGKILL');
      }
    });
    // The rank has ended, which its exit says.
    this.#control?.on('error', () => {});
  }

  #ended(exitCode: number | null, signal: NodeJS.Signals | null, spawnError: RankExit['spawnError']): void {
    if (this.#exit !== null) return;
    this.#exit = { rank: this.plan.rank, pid: this.pid, exitCode, signal, spawnError, time: Date.now() };
    // Processes that the rank started end with it.
    if (this.pid !== null) signalGroup(this.pid, 'SIGKILL');
    (this.#child.stdio[rankWatchFd] as Duplex | undefined)?.destroy();
    this.#control?.destroy();
    const { stdout, stderr } = this.#child;
    setTimeout(() => [stdout, stderr].forEach((stream) => stream?.destroy()), outputGraceMs).unref();
    this.emit('exit', this.#exit);
  }
}

function spawn(plan: RankPlan, shmFd: number, stateFd: number, routes: Routes): Child {
  const outputs = [routes.stdout, routes.stderr].map(({ isDirect }) => (isDirect ? 'inherit' : 'pipe'));
  const stdio: (string | number)[] = [plan.rank === 0 ? 'inherit' : 'ignore', ...outputs];
  stdio[rankShmFd] = shmFd;
  // Nothing is sent: the rank sees its end close when the launcher dies.
  stdio[rankWatchFd] = 'pipe';
  stdio[rankControlFd] = 'pipe';
  stdio[rankStateFd] = stateFd;
  const { env } = plan;
  // execa's types allow no descriptors past the standard streams; Node does.
  const descriptors = stdio as unknown as Options['stdio'];
  const options: Options = { env, stdio: descriptors, detached: true, cleanup: false, buffer: false, reject: false };
  return execa(plan.command, [...plan.args], options) as Child;
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
