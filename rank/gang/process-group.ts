/** Rank 0's sockets to the other ranks of a host: plans and control messages down, replies up. */
import { join } from 'node:path';
import { Pull, Push } from 'zeromq';
import { NdsError, toNdsError } from '../../protocol/errors.ts';
import { type DownMessage, decodeUp, encodeMessage, SequenceCheck, type UpMessage } from '../../protocol/messages.ts';
import { SendQueue } from './send-queue.ts';

/** The part of a rank's environment that its sockets use. */
export interface GroupEnv {
  readonly rank: number;
  readonly worldSize: number;
  /** Folder of the sockets, mode 0700. */
  readonly runDir: string;
  readonly startupTimeoutMs: number;
  readonly shutdownTimeoutMs: number;
}

/** Must be equal on all ranks before a load. */
export interface RankIdentity {
  readonly version: string;
  readonly isa: string;
  /** Hash of what the CUDA backend was built from; `none` without one. */
  readonly cudaBuild: string;
}

/** How long a closed socket keeps sending queued messages. */
export const lingerMs = 500;

/** Endpoint of plans and control messages from rank 0 to `rank`. */
export const planAddress = (runDir: string, rank: number) => `ipc://${join(runDir, `plan-${rank}`)}`;

/** Endpoint of all replies to rank 0. */
export const upAddress = (runDir: string) => `ipc://${join(runDir, 'up')}`;

/**
 * One PUSH socket per rank, ordered and without drops; replies share one PULL socket.
 * Nothing is received in steady state: a failed rank ends, and the launcher reports it.
 */
export class ProcessGroup {
  readonly #env: GroupEnv;
  readonly #plans: { readonly socket: Push; readonly queue: SendQueue }[] = [];
  readonly #up = new Pull({ linger: 0, receiveHighWaterMark: 0 });
  readonly #checks = new Map<number, SequenceCheck>();
  #numSent = 0;

  /** `onError` is called when a rank can no longer be reached. */
  constructor(env: GroupEnv, onError: (error: NdsError) => void) {
    this.#env = env;
    for (let rank = 1; rank < env.worldSize; rank++) {
      const socket = new Push({ linger: lingerMs, sendHighWaterMark: 0 });
      const fail = (error: unknown) =>
        onError(new NdsError('ERR_PEER_LOST', `Expected to reach rank ${rank} but could not send: ${error}`));
      this.#plans.push({ socket, queue: new SendQueue(socket, fail) });
      this.#checks.set(rank, new SequenceCheck());
    }
  }

  /**
   * Binds the sockets and waits for every rank's HELLO.
   * @throws NdsError `ERR_MISMATCH` when a rank has another world size, version, instruction set or CUDA build; `ERR_SYSTEM` when a
   * socket cannot be bound; else as `collect`.
   */
  async meet(identity: RankIdentity): Promise<void> {
    const { runDir, startupTimeoutMs } = this.#env;
    try {
      await this.#up.bind(upAddress(runDir));
      for (const [i, { socket }] of this.#plans.entries()) await socket.bind(planAddress(runDir, i + 1));
    } catch (error) {
      throw toNdsError(error, 'ERR_SYSTEM');
    }
    for (const hello of await this.collect('hello', startupTimeoutMs)) checkHello(hello, this.#env, identity);
  }

  /** Queues the same bytes for every other rank, without waiting. */
  broadcast(message: DownMessage, frame?: Uint8Array): void {
    const header = encodeMessage(this.#numSent++, message);
    for (const { queue } of this.#plans) queue.send(frame === undefined ? [header] : [header, frame]);
  }

  /**
   * Receives one message of a type from every other rank; returns them in order of rank. Where `onProgress` is given, ranks
   * may report the progress of a load before.
   * @throws NdsError a rank's reported error, under its own code; `ERR_PROTOCOL` for anything unexpected;
   * `ERR_PEER_LOST` naming the ranks that timed out.
   */
  async collect<Type extends UpMessage['type']>(
    type: Type,
    timeoutMs: number,
    onProgress?: (rank: number, loadedBytes: number) => void,
  ): Promise<Extract<UpMessage, { type: Type }>[]> {
    const replies = new Map<number, Extract<UpMessage, { type: Type }>>();
    const deadline = performance.now() + timeoutMs;
    while (replies.size < this.#env.worldSize - 1) {
      const message = await this.#receive(Math.max(0, deadline - performance.now()));
      if (message === null) {
        const missing = [...this.#checks.keys()].filter((rank) => !replies.has(rank));
        throw new NdsError(
          'ERR_PEER_LOST',
          `Expected '${type}' within ${timeoutMs / 1000} s but received none from rank ${missing.join(', ')}`,
        );
      }
      if (message.type === 'error') throw new NdsError(message.code, `Rank ${message.rank}: ${message.message}`);
      if (message.type === 'progress' && onProgress !== undefined && !replies.has(message.rank)) {
        onProgress(message.rank, message.loadedBytes);
        continue;
      }
      if (message.type !== type || replies.has(message.rank)) {
        throw new NdsError(
          'ERR_PROTOCOL',
          `Expected one '${type}' from each rank but received '${message.type}' from rank ${message.rank}`,
        );
      }
      replies.set(message.rank, message as Extract<UpMessage, { type: Type }>);
    }
    return [...this.#checks.keys()].map((rank) => replies.get(rank) as Extract<UpMessage, { type: Type }>);
  }

  /** The next message of any rank; null on timeout. */
  async #receive(timeoutMs: number): Promise<UpMessage | null> {
    this.#up.receiveTimeout = Math.ceil(timeoutMs);
    let frames: Buffer[];
    try {
      frames = await this.#up.receive();
    } catch (error) {
      if ((error as { code?: unknown }).code === 'EAGAIN' && !this.#up.closed) return null;
      throw new NdsError('ERR_CLOSED', 'Expected an answer from every rank but the group was closed', { cause: error });
    }
    const { sequence, message } = decodeUp(onlyFrame(frames));
    const check = this.#checks.get(message.rank);
    if (check === undefined)
      throw new NdsError('ERR_PROTOCOL', `Expected a rank from 1 to ${this.#env.worldSize - 1} but received ${message.rank}`);
    check.accept(sequence, `from rank ${message.rank}`);
    return message;
  }

  /** Closes the sockets, which ends the other ranks. */
  close(): void {
    this.#up.close();
    for (const { socket } of this.#plans) socket.close();
  }
}

function onlyFrame(frames: readonly Buffer[]): Buffer {
  if (frames.length !== 1) throw new NdsError('ERR_PROTOCOL', `Expected a message of 1 frame but received ${frames.length}`);
  return frames[0] as Buffer;
}

function checkHello(hello: Extract<UpMessage, { type: 'hello' }>, env: GroupEnv, identity: RankIdentity): void {
  const expected = { worldSize: env.worldSize, ...identity };
  for (const key of ['worldSize', 'version', 'isa', 'cudaBuild'] as const) {
    if (hello[key] === expected[key]) continue;
    throw new NdsError('ERR_MISMATCH', `Expected ${key} ${expected[key]} on rank ${hello.rank}, as on rank 0, but received ${hello[key]}`);
  }
}
