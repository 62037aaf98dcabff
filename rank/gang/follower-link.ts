/** A follower's end of the sockets between ranks. */
import { Pull, Push } from 'zeromq';
import type { GangInfo } from '../../protocol/control.ts';
import { NdsError } from '../../protocol/errors.ts';
import { type DownMessage, decodeDown, encodeMessage, type UpMessage } from '../../protocol/messages.ts';
import type { RankEnv } from '../../protocol/rank-env.ts';
import { SequenceCheck } from '../../protocol/sequence-check.ts';
import { Control } from './control.ts';
import { type GroupEnv, lingerMs, type RankIdentity } from './process-group.ts';
import { SendQueue } from './send-queue.ts';
import { type Channel, connectEnd, type End, planChannel, portsKey, readPorts } from './transport.ts';

const reconnectMs = 20;
/** Attempts to connect again that rank 0 ends, after which the connection counts as lost. */
const maxRefused = 10;

/** A message from rank 0; `frame` = the plan's bytes, null for other messages. */
export interface Received {
  readonly message: DownMessage;
  readonly frame: Uint8Array | null;
}

export interface LinkOptions {
  readonly env: Pick<GroupEnv, 'rank' | 'worldSize' | 'groupRank'>;
  readonly gang: GangInfo;
  /** TCP ports of rank 0; null on one node. */
  readonly ports: ReadonlyMap<Channel, number> | null;
  readonly identity: RankIdentity;
  /** Called when rank 0 is gone. */
  readonly onLeaderGone: () => void;
}

/** The link of a follower to rank 0; on several nodes it waits until rank 0 has bound. */
export async function openLink(env: RankEnv, gang: GangInfo, identity: RankIdentity, onLeaderGone: () => void): Promise<FollowerLink> {
  const published = gang.nodes === null ? null : await Control.open(env).published(gang.epoch, portsKey);
  const ports = published === null ? null : readPorts(published, env.worldSize);
  return new FollowerLink({ env, gang, ports, identity, onLeaderGone });
}

/** Receives plans and control messages, sends replies. */
export class FollowerLink {
  readonly #options: LinkOptions;
  readonly #plan: Pull;
  readonly #up: Push;
  readonly #queue: SendQueue;
  readonly #check: SequenceCheck;
  #numSent = 0;
  #broken: NdsError | null = null;

  /** Connects as soon as rank 0 binds, and sends HELLO. */
  constructor(options: LinkOptions) {
    this.#options = options;
    const { env, gang, ports, identity } = options;
    const [planEnd, upEnd] = [planChannel(env.rank), 'up' as const].map((channel) => connectEnd(gang, channel, ports, env.groupRank)) as [
      End,
      End,
    ];
    this.#plan = new Pull({ linger: 0, receiveHighWaterMark: 0, reconnectInterval: reconnectMs, ...planEnd.options });
    this.#up = new Push({ linger: lingerMs, reconnectInterval: reconnectMs, ...upEnd.options });
    this.#check = new SequenceCheck(gang.epoch);
    // A failed send means that rank 0 is gone.
    this.#queue = new SendQueue(this.#up, () => this.#onGone());
    this.#watch(this.#plan, () => this.send({ type: 'hello', rank: env.rank, worldSize: env.worldSize, ...identity }));
    this.#watch(this.#up, () => {});
    this.#plan.connect(planEnd.address);
    this.#up.connect(upEnd.address);
  }

  /** Calls `onMet` for the first connection; there must be no second, as messages in flight are lost with the first. */
  #watch(socket: Pull | Push, onMet: () => void): void {
    let state: 'new' | 'met' | 'lost' = 'new';
    socket.events.on('handshake', () => {
      if (state === 'lost') this.#break();
      else if (state === 'new') onMet();
      state = 'met';
    });
    // A connection between hosts may be lost while rank 0 still listens. On one host nothing else can end it.
    let numRefused = 0;
    socket.events.on('disconnect', () => {
      // Rank 0 admits nobody once all ranks have met. One that is about to end may do so too, but not for long.
      if (state === 'lost' && ++numRefused === maxRefused) this.#break();
      if (state === 'met') state = 'lost';
      if (state === 'lost' && this.#options.gang.nodes === null) this.#onGone();
    });
    socket.events.on('close', () => state === 'lost' && this.#onGone());
    // A message that was changed or repeated on the wire: the socket does not connect again.
    socket.events.on('handshake:error:protocol', () => state !== 'new' && this.#break());
  }

  #onGone(): void {
    if (this.#broken === null) this.#options.onLeaderGone();
  }

  #break(): void {
    this.#broken = new NdsError('ERR_PEER_LOST', `Expected one connection of rank ${this.#options.env.rank} to rank 0 but it was lost`);
    this.close();
  }

  send(message: UpMessage): void {
    this.#queue.send([encodeMessage(this.#options.gang.epoch, this.#numSent++, message)]);
  }

  /** Settles when the socket has accepted everything sent; it lingers for `lingerMs` after `close`. */
  async flush(): Promise<void> {
    await this.#queue.flush();
  }

  /**
   * Messages of rank 0, in order.
   * @throws NdsError `ERR_PROTOCOL` for a gap, a repeat, another epoch or a schema violation; `ERR_PEER_LOST` when a
   * connection between hosts was lost.
   */
  async *messages(): AsyncGenerator<Received> {
    for await (const frames of this.#plan) {
      const [header, frame, ...others] = frames;
      const envelope = decodeDown(header as Buffer);
      const { message } = envelope;
      this.#check.accept(envelope, `to rank ${this.#options.env.rank}`);
      const numFrames = message.type === 'plan' ? 2 : 1;
      if (frames.length !== numFrames || others.length > 0) {
        throw new NdsError('ERR_PROTOCOL', `Expected '${message.type}' as ${numFrames} frames but received ${frames.length}`);
      }
      yield { message, frame: frame ?? null };
    }
    if (this.#broken !== null) throw this.#broken;
  }

  close(): void {
    this.#plan.close();
    this.#up.close();
  }
}
