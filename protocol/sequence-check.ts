/** The order of messages on one channel. */
import { NdsError } from './errors.ts';
import type { Envelope } from './messages.ts';

/** Checks the place of one sender's messages on one channel of an epoch. */
export class SequenceCheck {
  readonly #epoch: number;
  #next = 0;

  constructor(epoch: number) {
    this.#epoch = epoch;
  }

  /** @throws NdsError `ERR_PROTOCOL` for another epoch, a gap or a repeat on the channel `name`. */
  accept({ epoch, sequence }: Pick<Envelope<unknown>, 'epoch' | 'sequence'>, name: string): void {
    if (epoch !== this.#epoch) {
      throw new NdsError(
        'ERR_PROTOCOL',
        `Expected a message of epoch ${this.#epoch} on the channel ${name} but received one of epoch ${epoch}`,
      );
    }
    if (sequence !== this.#next) {
      const kind = sequence < this.#next ? 'a repeat' : 'a gap';
      throw new NdsError('ERR_PROTOCOL', `Expected message ${this.#next} on the channel ${name} but received ${sequence}: ${kind}`);
    }
    this.#next++;
  }
}
