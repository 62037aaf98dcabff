/** The CURVE keys that each channel admits, by ZAP (https://rfc.zeromq.org/spec/27/). */
import { type Context, Reply } from 'zeromq';
import { NdsError } from '../../protocol/errors.ts';
import { decodeZ85 } from '../../protocol/z85.ts';
import type { Channel } from './transport.ts';

const keyBytes = 32;

/** Answers for the sockets of one context, until closed. Without it they admit nobody. */
export class AllowList {
  readonly #socket: Reply;
  /** Keys as hexadecimal. */
  readonly #keys: ReadonlyMap<string, ReadonlySet<string>>;

  /** @param keys - keys in Z85 by channel. @throws NdsError `ERR_PROTOCOL` for one that is none. */
  constructor(context: Context, keys: ReadonlyMap<Channel, readonly string[]>) {
    this.#keys = new Map([...keys].map(([channel, list]) => [channel, new Set(list.map((key) => decodeKey(key).toString('hex')))]));
    this.#socket = new Reply({ context, linger: 0 });
  }

  /** Must have settled before a socket of the context is bound. */
  async open(): Promise<void> {
    await this.#socket.bind('inproc://zeromq.zap.01');
    this.#serve().catch(() => {}); // closed
  }

  close(): void {
    this.#socket.close();
  }

  async #serve(): Promise<void> {
    for await (const [version, requestId, domain, , , mechanism, key] of this.#socket) {
      const isAdmitted = String(mechanism) === 'CURVE' && this.#keys.get(String(domain))?.has(key?.toString('hex') ?? '') === true;
      const [status, text] = isAdmitted ? ['200', 'OK'] : ['400', 'Unknown key'];
      await this.#socket.send([version as Buffer, requestId as Buffer, status as string, text as string, '', '']);
    }
  }
}

function decodeKey(text: string): Buffer {
  const key = decodeZ85(text, keyBytes);
  if (key === null) {
    throw new NdsError('ERR_PROTOCOL', `Expected a CURVE key of 40 characters in Z85 but received "${text.slice(0, 40)}"`);
  }
  return key;
}
