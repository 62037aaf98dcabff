/** The memory in which the ranks of this node tell what they are doing: opened before they start, read while they run. */
import { closeSync, readFileSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { NdsError } from '../protocol/errors.ts';
import { ownedName } from './owned-names.ts';
import { decodeState, type RankState, stateBytes } from './rank-state.ts';
import { memoryFolders, reserve } from './shared-memory.ts';

/** A local rank, and its process while it runs. */
export interface StateOwner {
  readonly rank: number;
  readonly localRank: number;
  readonly pid: number | null;
}

/** An unlinked file with one block for each local rank, which only that rank's native code writes. */
export class StateMemory {
  readonly fd: number;
  readonly #block = Buffer.alloc(stateBytes);

  private constructor(fd: number) {
    this.fd = fd;
  }

  /** @throws NdsError `ERR_SYSTEM` when no folder has room. */
  static open(numRanks: number): StateMemory {
    const reasons: string[] = [];
    for (const folder of memoryFolders()) {
      try {
        const path = join(folder, ownedName());
        // A rank that touches a page for which there is no room dies of SIGBUS.
        const fd = reserve(path, numRanks * stateBytes);
        unlinkSync(path);
        return new StateMemory(fd);
      } catch (error) {
        reasons.push((error as Error).message);
      }
    }
    throw new NdsError('ERR_SYSTEM', `Expected a folder for ${numRanks * stateBytes} bytes of the ranks' state: ${reasons.join('; ')}`);
  }

  /** Forgets what a rank did, before it is started anew. */
  reset(localRank: number): void {
    writeSync(this.fd, Buffer.alloc(stateBytes), 0, stateBytes, localRank * stateBytes);
  }

  read({ rank, localRank, pid }: StateOwner): RankState {
    readSync(this.fd, this.#block, 0, stateBytes, localRank * stateBytes);
    return decodeState(rank, this.#block, pid !== null && isStopped(pid));
  }

  close(): void {
    closeSync(this.fd);
  }
}

/** Whether a signal has stopped a process; false where the system does not tell. */
function isStopped(pid: number): boolean {
  try {
    return /^\) [tT] /.test(readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*(?=\) )/s, ''));
  } catch {
    return false;
  }
}
