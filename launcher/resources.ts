/** Resources that the launcher opens before a gang starts and releases afterwards. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NdsError } from '../protocol/errors.ts';
import type { LaunchOptions } from './options.ts';
import { ownedPrefix, removeAbandoned } from './owned-names.ts';
import type { GangResources } from './plan.ts';
import { memoryFolders, openSharedMemory, type SharedMemory } from './shared-memory.ts';

/**
 * Max length of a run folder's path: a unix socket's path holds 107 bytes on Linux and 103 on macOS, and its name needs
 * the rest.
 */
const maxRunDirLength = 70;
/** `/<name>/<epoch>`, with seven digits of a process id and two of an epoch. */
const runDirNameLength = '/nds-123456-1234567-abcdef/12'.length;

/** Run folder and shared memory of one epoch. */
export interface EpochResources {
  readonly epoch: number;
  readonly runDir: string;
  /** Descriptor of the file that the ranks share. */
  readonly shmFd: number;
  /** Its path while it has one. */
  readonly shmPath: string | null;
  /** Why the memory is not where it should be; null where it is. */
  readonly notice: string | null;
  /** Removes the path: the memory lives until its last user ends. */
  unlink(): void;
  /** Gives up what ranks have inherited. */
  close(): void;
}

/** Opens the run folder, of which each epoch has a part, and holds the master port. */
export class Resources {
  readonly runId: string;
  /** Each epoch's own folder is below it. */
  readonly #parentDir: string;
  readonly #masterAddr: string;
  readonly #masterPort: number;
  readonly #numRanks: number;
  /** Holds the master port; null on several nodes, where the link of node 0 does. */
  readonly #server: Server | null;
  #epoch: EpochResources | null = null;

  private constructor(options: LaunchOptions, numRanks: number, server: Server | null) {
    this.#server = server;
    this.#numRanks = numRanks;
    this.runId = options.runId ?? newRunId();
    this.#masterAddr = options.masterAddr ?? options.localAddr ?? '127.0.0.1';
    this.#masterPort = server === null ? (options.masterPort ?? 0) : portOf(server);
    this.#parentDir = makeRunDir();
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
      throw systemError(error);
    }
  }

  /** What the ranks of an epoch are told, with nothing left open: for `--dry-run`. */
  static async preview(options: LaunchOptions): Promise<GangResources> {
    const resources = await Resources.open(options, 0);
    resources.dispose();
    return resources.gang(0);
  }

  /** What the ranks of an epoch are told. */
  gang(epoch: number): GangResources {
    const { runId } = this;
    return {
      epoch,
      runId,
      runDir: this.runDir(epoch),
      masterAddr: this.#masterAddr,
      masterPort: this.#masterPort,
      launcherPid: process.pid,
    };
  }

  /** Of the epochs so far. */
  get runDirs(): string[] {
    return Array.from({ length: (this.#epoch?.epoch ?? -1) + 1 }, (_, epoch) => this.runDir(epoch));
  }

  runDir(epoch: number): string {
    return join(this.#parentDir, String(epoch));
  }

  /**
   * Opens the next epoch; nothing of the one before is used again. `isNamed`: the memory keeps its path, for a rank that
   * does not inherit it.
   * @throws NdsError `ERR_SYSTEM` when a folder or file cannot be made.
   */
  openEpoch(epoch: number, isNamed: boolean): EpochResources {
    this.#epoch?.close();
    try {
      mkdirSync(this.runDir(epoch), { mode: 0o700 });
      this.#epoch = new Epoch(epoch, this.runDir(epoch), openSharedMemory(this.#numRanks));
    } catch (error) {
      throw systemError(error);
    }
    if (!isNamed) this.#epoch.unlink();
    return this.#epoch;
  }

  dispose(): void {
    this.#server?.close();
    this.#epoch?.close();
    this.#epoch = null;
    rmSync(this.#parentDir, { recursive: true, force: true });
  }
}

class Epoch implements EpochResources {
  readonly epoch: number;
  readonly runDir: string;
  readonly shmFd: number;
  #shmPath: string | null;
  readonly notice: string | null;
  #isOpen = true;

  constructor(epoch: number, runDir: string, { fd, path, notice }: SharedMemory) {
    this.epoch = epoch;
    this.runDir = runDir;
    this.shmFd = fd;
    this.#shmPath = path;
    this.notice = notice;
  }

  get shmPath(): string | null {
    return this.#shmPath;
  }

  unlink(): void {
    if (this.#shmPath !== null) rmSync(this.#shmPath, { force: true });
    this.#shmPath = null;
  }

  close(): void {
    this.unlink();
    if (this.#isOpen) closeSync(this.shmFd);
    this.#isOpen = false;
  }
}

function systemError(error: unknown): NdsError {
  if (error instanceof NdsError) return error;
  return new NdsError('ERR_SYSTEM', `Expected a writable ${tmpdir()} for the run folder and shared memory: ${(error as Error).message}`);
}

/** A name for a job without one. */
export function newRunId(): string {
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
  const parent = tmpdir().length > maxRunDirLength - runDirNameLength ? '/tmp' : tmpdir();
  for (const folder of new Set([parent, ...memoryFolders()])) removeAbandoned(folder);
  return mkdtempSync(join(parent, ownedPrefix()));
}
