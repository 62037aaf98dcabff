/** Resources that the launcher opens before a gang starts and releases afterwards. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, lstatSync, mkdtempSync, readdirSync, rmSync, unlinkSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NdsError } from '../protocol/errors.ts';
import type { LaunchOptions } from './options.ts';
import type { GangResources } from './plan.ts';
import { openSharedMemory } from './shared-memory.ts';

/**
 * Max length of a run folder's path: a unix socket's path holds 107 bytes on Linux and 103 on macOS, and its name needs
 * the rest.
 */
const maxRunDirLength = 70;

/**
 * Opens run folder, shared memory and master port. `dispose` releases them; the memory lives until its last user ends.
 */
export class Resources implements GangResources {
  readonly runDir: string;
  readonly runId: string;
  readonly masterAddr: string;
  readonly masterPort: number;
  readonly launcherPid: number = process.pid;
  /** Descriptor of the unlinked file that the ranks share. */
  readonly shmFd: number;
  /** Why the memory is not where it should be; null where it is. */
  readonly memoryNotice: string | null;
  /** Holds the master port; null on several nodes, where the link of node 0 does. */
  readonly #server: Server | null;

  private constructor(options: LaunchOptions, numRanks: number, server: Server | null) {
    this.#server = server;
    this.runId = options.runId ?? newRunId();
    this.masterAddr = options.masterAddr ?? options.localAddr ?? '127.0.0.1';
    this.masterPort = server === null ? (options.masterPort ?? 0) : portOf(server);
    this.runDir = makeRunDir();
    try {
      const { fd, path, notice } = openSharedMemory(numRanks);
      // Unlinked at once, so that the memory cannot outlive its users.
      unlinkSync(path);
      this.shmFd = fd;
      this.memoryNotice = notice;
    } catch (error) {
      rmSync(this.runDir, { recursive: true });
      throw error;
    }
  }

  /**
   * `numRanks` is of this node.
   * @throws NdsError `ERR_USAGE` when the master port is not free, `ERR_SYSTEM` when a folder or file cannot be made.
   */
  static async open(options: LaunchOptions, numRanks: number): Promise<Resources> {
    const server = options.nnodes > 1 ? null : await reservePort(options);
    try {
      return new Resources(options, numRanks, server);
    } catch (error) {
      server?.close();
      if (error instanceof NdsError) throw error;
      throw new NdsError('ERR_SYSTEM', `Expected a writable ${tmpdir()} for the run folder: ${(error as Error).message}`);
    }
  }

  /** What `open` would return, with nothing left open: for `--dry-run`. */
  static async preview(options: LaunchOptions): Promise<GangResources> {
    const resources = await Resources.open(options, 0);
    resources.dispose();
    return resources;
  }

  dispose(): void {
    this.#server?.close();
    closeSync(this.shmFd);
    rmSync(this.runDir, { recursive: true, force: true });
  }
}

function newRunId(): string {
  return `nds-${randomBytes(4).toString('hex')}`;
}

/** Holds the port for the life of the gang, so that no other program takes the one that ranks were given. */
async function reservePort(options: LaunchOptions): Promise<Server> {
  const host = options.localAddr ?? options.masterAddr ?? '127.0.0.1';
  const server = createServer((socket) => socket.destroy());
  try {
    server.listen({ host, port: options.masterPort ?? 0, exclusive: true });
    await once(server, 'listening');
  } catch (error) {
    throw new NdsError(
      'ERR_USAGE',
      `Expected a free port for the master at ${host}:${options.masterPort ?? 0} but received ${(error as Error).message}`,
    );
  }
  return server.unref();
}

function portOf(server: Server): number {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new NdsError('ERR_INTERNAL', 'Expected a TCP address of the master port');
  return address.port;
}

function makeRunDir(): string {
  const parent = tmpdir().length > maxRunDirLength - 20 ? '/tmp' : tmpdir();
  removeAbandonedRunDirs(parent);
  return mkdtempSync(join(parent, `nds-${process.pid}-`));
}

/** Removes the run folders of launchers that were killed; a folder's name holds its launcher's process id. */
function removeAbandonedRunDirs(parent: string): void {
  for (const name of readdirSync(parent)) {
    const pid = /^nds-(\d+)-\w{6}$/.exec(name)?.[1];
    if (pid === undefined || isRunning(Number(pid))) continue;
    const path = join(parent, name);
    const { uid } = lstatSync(path, { throwIfNoEntry: false }) ?? {};
    if (uid === process.getuid?.()) rmSync(path, { recursive: true, force: true });
  }
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}
