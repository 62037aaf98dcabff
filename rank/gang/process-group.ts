/** Rank 0's sockets to the other ranks: plans and control messages down, replies up. */
import { Context, Pull, Push } from 'zeromq';
import type { GangInfo } from '../../protocol/control.ts';
import { NdsError, toNdsError } from '../../protocol/errors.ts';
import { type DownMessage, decodeUp, encodeMessage, type UpMessage } from '../../protocol/messages.ts';
import type { RankEnv } from '../../protocol/rank-env.ts';
import { SequenceCheck } from '../../protocol/sequence-check.ts';
import { AllowList } from './allow-list.ts';
import { Control } from './control.ts';
import { SendQueue } from './send-queue.ts';
import { bindEnd, type Channel, planChannel, portOf, portsKey, writePorts } from './transport.ts';

/** The part of a rank's environment that its sockets use. */
export type GroupEnv = Pick<RankEnv, 'rank' | 'worldSize' | 'groupRank' | 'startupTimeoutMs' | 'shutdownTimeoutMs'>;

/** Must be equal on all ranks before a load. */
export interface RankIdentity {
  readonly version: string;
  readonly isa: string;
  /** Hash of what the CUDA backend was built from; `none` without one. */
  readonly cudaBuild: string;
}

/** An error of another rank, which ends it. */
export class ReportedError extends NdsError {}

/** How long a closed socket keeps sending queued messages. */
export const lingerMs = 500;

export interface GroupOptions {
  readonly env: Pick<GroupEnv, 'worldSize' | 'startupTimeoutMs'>;
  readonly gang: GangInfo;
  /** Tells the other ranks; called on several nodes only. */
  readonly publish: (key: string, value: string) => void;
  /** Called when a rank can no longer be reached, until `close`. */
  readonly onError: (error: NdsError) => void;
}

/** The sockets of an epoch. */
export function openGroup(env: RankEnv, gang: GangInfo, onError: (error: NdsError) => void): ProcessGroup {
  return new ProcessGroup({ env, gang, publish: (key, value) => Control.open(env).publish(gang.epoch, key, value), onError });
}

/**
 * One PUSH socket per rank, ordered and without drops; replies share one PULL socket. All of it belongs to one epoch.
 * Nothing is received in steady state: a failed rank ends, and the launcher reports it.
 */
export class ProcessGroup {
  readonly #options: GroupOptions;
  readonly #plans: { readonly socket: Push; readonly queue: SendQueue }[] = [];
  readonly #up: Pull;
  readonly #checks = new Map<number, SequenceCheck>();
  /** Null on one node. */
  readonly #allowList: AllowList | null;
  #numSent = 0;
  #isClosed = false;

  /** @throws NdsError `ERR_USAGE` for an address of all interfaces, `ERR_PROTOCOL` for a key that is none. */
  constructor(options: GroupOptions) {
    this.#options = options;
    const { env, gang, onError } = options;
    // A context has one allow-list.
    const context = gang.nodes === null ? {} : { context: new Context() };
    this.#allowList = context.context === undefined ? null : new AllowList(context.context, admittedKeys(gang, env.worldSize));
    this.#up = new Pull({ ...context, linger: 0, receiveHighWaterMark: 0, ...bindEnd(gang, 'up').options });
    for (let rank = 1; rank < env.worldSize; rank++) {
      const end = bindEnd(gang, planChannel(rank));
      const socket = new Push({ ...context, linger: lingerMs, sendHighWaterMark: 0, ...end.options });
      const fail = (error: unknown) => {
        if (!this.#isClosed) onError(new NdsError('ERR_PEER_LOST', `Expected to reach rank ${rank} but could not send: ${error}`));
      };
      this.#plans.push({ socket, queue: new SendQueue(socket, fail) });
      this.#checks.set(rank, new SequenceCheck(gang.epoch));
    }
  }

  /**
   * Binds the sockets and waits for every rank's HELLO.
   * @throws NdsError `ERR_MISMATCH` when a rank has another world size, version, instruction set or CUDA build; `ERR_SYSTEM` when a
   * socket cannot be bound; else as `collect`.
   */
  async meet(identity: RankIdentity): Promise<void> {
    const { env } = this.#options;
    try {
      await this.#bind();
    } catch (error) {
      if (this.#isClosed) throw closed(error);
      throw toNdsError(error, 'ERR_SYSTEM');
    }
    const hellos = await this.collect('hello', env.startupTimeoutMs);
    // All are connected: nobody else is admitted. Its wait would also keep this process alive.
    this.#allowList?.close();
    for (const hello of hellos) checkHello(hello, env, identity);
  }

  async #bind(): Promise<void> {
    const { env, gang, publish } = this.#options;
    await this.#allowList?.open();
    const ports = new Map<Channel, number>();
    const channels = [['up', this.#up] as const, ...this.#plans.map(({ socket }, i) => [planChannel(i + 1), socket] as const)];
    for (const [channel, socket] of channels) {
      await socket.bind(bindEnd(gang, channel).address);
      ports.set(channel, portOf(socket.lastEndpoint ?? ''));
    }
    if (gang.nodes !== null) publish(portsKey, writePorts(ports, env.worldSize));
  }

  /** Queues the same bytes for every other rank, without waiting. */
  broadcast(message: DownMessage, frame?: Uint8Array): void {
    const header = encodeMessage(this.#options.gang.epoch, this.#numSent++, message);
    for (const { queue } of this.#plans) queue.send(frame === undefined ? [header] : [header, frame]);
  }

  /**
   * Receives one message of a type from every other rank; returns them in order of rank. Where `onProgress` is given, ranks
   * may report the progress of a load before, and any rank's progress begins the timeout anew.
   * @throws NdsError a rank's reported error, under its own code; `ERR_PROTOCOL` for anything unexpected;
   * `ERR_PEER_LOST` naming the ranks that timed out.
   */
  async collect<Type extends UpMessage['type']>(
    type: Type,
    timeoutMs: number,
    onProgress?: (rank: number, loadedBytes: number) => void,
  ): Promise<Extract<UpMessage, { type: Type }>[]> {
    const replies = new Map<number, Extract<UpMessage, { type: Type }>>();
    const bytesOf = new Map<number, number>();
    let deadline = performance.now() + timeoutMs;
    while (replies.size < this.#options.env.worldSize - 1) {
      const message = await this.#receive(Math.max(0, deadline - performance.now()));
      if (message === null) {
        const missing = [...this.#checks.keys()].filter((rank) => !replies.has(rank));
        throw new NdsError(
          'ERR_PEER_LOST',
          `Expected '${type}' within ${timeoutMs / 1000} s but received none from rank ${missing.join(', ')}`,
        );
      }
      if (message.type === 'error') throw new ReportedError(message.code, `Rank ${message.rank}: ${message.message}`);
      if (message.type === 'progress' && onProgress !== undefined && !replies.has(message.rank)) {
        onProgress(message.rank, message.loadedBytes);
        if (bytesOf.get(message.rank) !== message.loadedBytes) deadline = performance.now() + timeoutMs;
        bytesOf.set(message.rank, message.loadedBytes);
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
      throw closed(error);
    }
    const envelope = decodeUp(onlyFrame(frames));
    const { message } = envelope;
    const check = this.#checks.get(message.rank);
    if (check === undefined)
      throw new NdsError('ERR_PROTOCOL', `Expected a rank from 1 to ${this.#options.env.worldSize - 1} but received ${message.rank}`);
    check.accept(envelope, `from rank ${message.rank}`);
    return message;
  }

  /**
   * Closes the sockets, which ends the other ranks.
   * @param linger - how long messages sent before may still go out; 0 for an epoch that is given up
   */
  close(linger: number = lingerMs): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#up.close();
    for (const { socket } of this.#plans) {
      socket.linger = linger;
      socket.close();
    }
    this.#allowList?.close();
  }
}

/** Every rank may reply; only a rank itself gets its plans. */
function admittedKeys({ nodes }: GangInfo, worldSize: number): ReadonlyMap<Channel, readonly string[]> {
  const [, ...keys] = nodes?.curve.publicKeys ?? [];
  if (keys.length !== worldSize - 1) {
    throw new NdsError('ERR_PROTOCOL', `Expected the public keys of ${worldSize} ranks but received ${keys.length + 1}`);
  }
  return new Map<Channel, readonly string[]>([['up', keys], ...keys.map((key, i) => [planChannel(i + 1), [key]] as const)]);
}

function closed(cause: unknown): NdsError {
  return new NdsError('ERR_CLOSED', 'Expected an answer from every rank but the group was closed', { cause });
}

function onlyFrame(frames: readonly Buffer[]): Buffer {
  if (frames.length !== 1) throw new NdsError('ERR_PROTOCOL', `Expected a message of 1 frame but received ${frames.length}`);
  return frames[0] as Buffer;
}

function checkHello(hello: Extract<UpMessage, { type: 'hello' }>, env: Pick<GroupEnv, 'worldSize'>, identity: RankIdentity): void {
  const expected = { worldSize: env.worldSize, ...identity };
  for (const key of ['worldSize', 'version', 'isa', 'cudaBuild'] as const) {
    if (hello[key] === expected[key]) continue;
    throw new NdsError('ERR_MISMATCH', `Expected ${key} ${expected[key]} on rank ${hello.rank}, as on rank 0, but received ${hello[key]}`);
  }
}
