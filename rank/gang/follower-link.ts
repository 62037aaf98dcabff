/** A follower's end of the sockets between ranks. */
import { Pull, Push } from 'zeromq';
import { NdsError } from '../../protocol/errors.ts';
import { type DownMessage, decodeDown, encodeMessage, SequenceCheck, type UpMessage } from '../../protocol/messages.ts';
import { type GroupEnv, lingerMs, planAddress, type RankIdentity, upAddress } from './process-group.ts';
import { SendQueue } from './send-queue.ts';

const reconnectMs = 20;

/** A message from rank 0; `frame` = the plan's bytes, null for other messages. */
export interface Received {
  readonly message: DownMessage;
  readonly frame: Uint8Array | null;
}

/** Receives plans and control messages, sends replies. */
export class FollowerLink {
  readonly #env: GroupEnv;
  readonly #plan = new Pull({ linger: 0, receiveHighWaterMark: 0, reconnectInterval: reconnectMs });
  readonly #up = new Push({ linger: lingerMs, reconnectInterval: reconnectMs });
  readonly #queue: SendQueue;
  readonly #check = new SequenceCheck();
  #numSent = 0;

  /** Connects as soon as rank 0 binds, and sends HELLO. `onLeaderGone` is called when rank 0 is gone. */
  constructor(env: GroupEnv, identity: RankIdentity, onLeaderGone: () => void) {
    this.#env = env;
    // A failed send means that rank 0 is gone.
    this.#queue = new SendQueue(this.#up, onLeaderGone);
    this.#plan.events.on('disconnect', onLeaderGone);
    let met = false;
    this.#plan.events.on('connect', () => {
      if (met) return;
      met = true;
      this.send({ type: 'hello', rank: env.rank, worldSize: env.worldSize, ...identity });
    });
    this.#plan.connect(planAddress(env.runDir, env.rank));
    this.#up.connect(upAddress(env.runDir));
  }

  send(message: UpMessage): void {
    this.#queue.send([encodeMessage(this.#numSent++, message)]);
  }

  /** Settles when the socket has accepted everything sent; it lingers for `lingerMs` after `close`. */
  async flush(): Promise<void> {
    await this.#queue.flush();
  }

  /** Messages of rank 0, in order. @throws NdsError `ERR_PROTOCOL` for a gap, a repeat or a schema violation. */
  async *messages(): AsyncGenerator<Received> {
    for await (const frames of this.#plan) {
      const [header, frame, ...others] = frames;
      const { sequence, message } = decodeDown(header as Buffer);
      this.#check.accept(sequence, `to rank ${this.#env.rank}`);
      const numFrames = message.type === 'plan' ? 2 : 1;
      if (frames.length !== numFrames || others.length > 0) {
        throw new NdsError('ERR_PROTOCOL', `Expected '${message.type}' as ${numFrames} frames but received ${frames.length}`);
      }
      yield { message, frame: frame ?? null };
    }
  }

  close(): void {
    this.#plan.close();
    this.#up.close();
  }
}
