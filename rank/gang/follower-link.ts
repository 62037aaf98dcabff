/** The other ranks' end of the sockets between ranks. */
import { Pull, Push } from 'zeromq';
import { NdsError } from '../../protocol/errors.ts';
import { type DownMessage, decodeDown, encodeMessage, SequenceCheck, type UpMessage } from '../../protocol/messages.ts';
import { type GroupEnv, lingerMs, planAddress, type RankIdentity, upAddress } from './process-group.ts';
import { SendQueue } from './send-queue.ts';

const reconnectMs = 20;

/** A message from rank 0, with the plan's bytes where it is one. */
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

  /** Connects, now or as soon as rank 0 is there, and says HELLO. `onLeaderGone` is called once rank 0's process has ended. */
  constructor(env: GroupEnv, identity: RankIdentity, onLeaderGone: () => void) {
    this.#env = env;
    // Rank 0 is gone: what could not be sent has no reader.
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

  /** Sends a message to rank 0. */
  send(message: UpMessage): void {
    this.#queue.send([encodeMessage(this.#numSent++, message)]);
  }

  /** Settles when everything sent is with the socket, which keeps it for a moment after it was closed. */
  async flush(): Promise<void> {
    await this.#queue.flush();
  }

  /** Everything that rank 0 says, in order. @throws NdsError `ERR_PROTOCOL` for a gap, a repeat or a message off its schema. */
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
